"""Trained detectors at work: prediction, drawing, evaluation of a saved run."""
