"""Step 1: validate annotations."""
