"""Optional, before step 1: convert annotations of another format."""
