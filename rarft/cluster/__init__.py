"""Training on Kubernetes: PyTorchJob and TrainJob, rendered, started, watched, explained and removed."""
