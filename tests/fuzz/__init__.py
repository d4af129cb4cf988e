"""Damaged files for everything that reads files: a few hundred in the tests, many more by `make fuzz`."""
