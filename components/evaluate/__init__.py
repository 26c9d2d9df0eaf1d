"""Step 4: evaluate the trained checkpoint and compare it with its base."""
