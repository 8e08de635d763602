"""What a run measures and remembers, and the files it is kept in."""
