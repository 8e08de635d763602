"""What `od-detr predict` writes: one small class for each kind of file."""
