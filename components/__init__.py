"""One folder a step: its Kubeflow contract, and a body that calls `rarft.steps`."""
