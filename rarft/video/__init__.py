"""Video files: what they are, and their frames."""
