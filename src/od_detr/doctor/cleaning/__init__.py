"""A cleaned copy of a data set: what is repaired, and what is left out."""
