"""What a run costs: measured or worked out before it starts."""
