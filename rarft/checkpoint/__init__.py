"""Checkpoints of a training run: save, upload, find, and resume from them."""
