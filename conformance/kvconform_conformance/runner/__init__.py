"""How the suite runs: its command line, its pytest plugin, its records, the subjects it asks."""
