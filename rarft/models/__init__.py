"""Models: inputs, positions, forward passes and generation, one package per architecture."""
