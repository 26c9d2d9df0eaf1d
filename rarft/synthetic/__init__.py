"""Synthetic dataset, the tiny model for it, and the script that trains the packaged checkpoints."""
