"""The training run: plan, parts, steps, loop, and what it records."""
