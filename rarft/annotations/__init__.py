"""The RIQ annotation format: reading, checks, repairs and the report."""
