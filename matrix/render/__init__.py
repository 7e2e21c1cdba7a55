"""What people see: the tables, the page, the figure, the badges, the summary of one cell."""
