"""Files, object stores and caches."""
