"""The steps as one pipeline: compiled for Kubeflow, submitted to a cluster, or run on this machine."""
