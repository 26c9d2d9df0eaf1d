"""Step 3 on several nodes: train with a TrainJob or a PyTorchJob."""
