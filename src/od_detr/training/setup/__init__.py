"""What a run is set up from: its data, and a new or an already trained detector."""
