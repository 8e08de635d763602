"""What the command line does, from Python."""

from od_detr.api.detector import Detector, NewDetector, train

__all__ = ["Detector", "NewDetector", "train"]
