"""The commands of `python -m matrix`."""
