"""Step 3 over several machines: train by a PyTorchJob."""
