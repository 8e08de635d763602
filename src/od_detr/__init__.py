"""OD-DETR: detection transformers trained with online distillation."""

import warnings

from od_detr.api import Detector, train

__all__ = ["Detector", "train"]

# Nothing here needs OpenCV, which supervision advises to install when it is imported.
warnings.filterwarnings("ignore", message=".*OpenCV.*", module="supervision")
