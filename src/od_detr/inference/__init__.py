"""Trained detectors at work: prediction, drawing, evaluation of a saved run."""

import warnings

# Nothing here needs OpenCV, which supervision advises to install when it is imported.
warnings.filterwarnings("ignore", message=".*OpenCV.*", module="supervision")
