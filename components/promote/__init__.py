"""Step 5: copy a checkpoint that passed its gates to its release location."""
