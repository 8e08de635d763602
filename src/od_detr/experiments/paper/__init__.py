"""The rows of the paper: one file for each of its tables, and one for its figures."""
