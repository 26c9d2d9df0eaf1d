"""Step 5: copy a checkpoint that passed its gates to where it is shipped from."""
