"""What the doctor shows: a table in the terminal, and a page."""
