"""Which images an epoch trains on, and how often."""
