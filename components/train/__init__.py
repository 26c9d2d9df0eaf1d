"""Step 3: train by GRPO."""
