"""What a cell leaves: lines, and the files that hold them. Collecting, judging and rendering meet here only."""
