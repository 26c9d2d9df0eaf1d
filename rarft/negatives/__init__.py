"""Refusable queries for answerable data: shuffled, by rules, and by a language model."""
