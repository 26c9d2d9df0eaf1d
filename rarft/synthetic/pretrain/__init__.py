"""Supervised pretraining of the tiny model, from random weights to the two packaged checkpoints."""
