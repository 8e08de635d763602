"""Writes data sets in other formats."""
