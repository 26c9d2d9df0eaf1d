"""Evaluation of checkpoints and of finished predictions: metrics, gates, a report, promotion."""
