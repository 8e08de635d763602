"""What happens to annotations between reading and training: files, units, classes, splits."""
