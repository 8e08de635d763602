"""What is made of results for a reader: curves, tables and pages."""
