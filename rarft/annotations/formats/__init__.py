"""Published annotation formats: one small file per format, which turns a record of a file into queries."""
