"""RIQ annotations: reading, checks, repairs and the validation report."""
