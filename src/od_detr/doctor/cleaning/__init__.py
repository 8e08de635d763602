"""A cleaned copy of a data set: what can be mended, and what is left out."""
