"""The steps wired into one pipeline: compiled for Kubeflow, run locally by the same definition."""
