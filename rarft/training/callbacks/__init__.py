"""Callbacks of the trainer: progress, log and curves, checkpoints, preemption."""
