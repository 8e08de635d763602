"""The architectures of the paper, each a composition of the same parts."""

from od_detr.detectors.compiled import check_compiles, compile_backbone
from od_detr.detectors.dab_deformable_detr import dab_deformable_detr
from od_detr.detectors.deformable_detr import deformable_detr_plus
from od_detr.detectors.dino import dino
from od_detr.detectors.protocol import Encoded, QueryDetector
from od_detr.detectors.saved import build_detector, load_detector, load_weights, save_detector
from od_detr.detectors.transformer import (
    Detections,
    DetectionTransformer,
    best_pairs,
    select_detections,
)

__all__ = [
    "DetectionTransformer",
    "Detections",
    "Encoded",
    "QueryDetector",
    "best_pairs",
    "build_detector",
    "check_compiles",
    "compile_backbone",
    "dab_deformable_detr",
    "deformable_detr_plus",
    "dino",
    "load_detector",
    "load_weights",
    "save_detector",
    "select_detections",
]
