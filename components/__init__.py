"""Kubeflow components, one folder per pipeline step. Their bodies call `rarft.steps` and write Kubeflow artifacts."""
