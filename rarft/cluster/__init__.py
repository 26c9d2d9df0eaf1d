"""Training on Kubernetes: render, start, monitor and delete PyTorchJobs and TrainJobs."""
