"""Data sets: finding, checking, reading, augmenting, batching, and the built-in scenes."""
