"""Step 3: train with GRPO."""
