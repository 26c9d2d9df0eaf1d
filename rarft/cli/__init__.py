"""The `rarft` command line."""
