"""Checkpoints of a training run: saved, uploaded, found again and resumed from."""
