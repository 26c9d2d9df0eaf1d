"""HTML pages, their charts, and the training log."""
