"""Step 4: evaluate base and trained checkpoint."""
