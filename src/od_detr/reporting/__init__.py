"""What people look at: curves, tables, drawn detections, pages."""
