"""Data sets: finding, checking, reading, augmenting and batching them, and drawing the built-in one."""
