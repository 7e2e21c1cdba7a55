"""What records mean: each check against the baseline, across cells, across runs."""
