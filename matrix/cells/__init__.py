"""Which cells exist: the cell, the releases of its axes, ranges and selectors of them, and what a run may be asked."""
