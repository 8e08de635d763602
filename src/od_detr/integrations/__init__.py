"""Other code bases: their weights (`weights/`)."""
