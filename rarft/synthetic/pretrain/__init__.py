"""Supervised cold start of the tiny model, from nothing to the two checkpoints that the package carries."""
