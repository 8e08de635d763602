"""The checks, a module for each kind: from a split, or all splits, to problems."""
