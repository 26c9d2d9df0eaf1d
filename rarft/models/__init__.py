"""Model-specific code, one package per model family."""
