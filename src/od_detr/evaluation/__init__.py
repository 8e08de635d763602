"""How good and how stable a detector is: COCO figures, matching stability, curves."""
