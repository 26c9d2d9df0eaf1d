"""Evaluation: predictions of a checkpoint, their metrics, and the report."""
