"""Process groups, launchers and work shared between processes."""
