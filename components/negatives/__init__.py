"""After validation, optional: add refusable queries to the training data."""
