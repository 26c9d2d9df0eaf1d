"""Before the steps: what they will read, as one text."""
