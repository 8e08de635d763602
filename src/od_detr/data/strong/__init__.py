"""What `--augment strong` adds to flips and scales: other colours and mosaics."""
