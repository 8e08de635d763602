"""Options of commands that Python shares, and options that several commands share."""
