"""Qwen2.5-VL: inputs, positions, packed forwards, generation, and the tiny model."""
