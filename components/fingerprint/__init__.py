"""Before the steps: check the parameters and fingerprint the inputs."""
