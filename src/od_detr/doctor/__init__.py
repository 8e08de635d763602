"""Checks a data set before any training: what is wrong, what that costs, and how to fix it."""
