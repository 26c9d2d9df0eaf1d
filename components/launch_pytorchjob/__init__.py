"""Step 3 on several nodes: train with a PyTorchJob."""
