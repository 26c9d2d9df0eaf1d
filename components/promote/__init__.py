"""Step: copy a checkpoint that passed its gates."""
