"""HTML pages and the training log."""
