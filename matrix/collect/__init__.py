"""How a cell is run: its environment, the suite in it, the record it streams; one cell or many at once."""
