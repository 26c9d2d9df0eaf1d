"""Qwen2.5-VL: inputs, positions, packed forward passes and generation."""
