"""A trained detector for other classes: those of the same name keep their weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from od_detr.detectors.saved import build_detector
from od_detr.detectors.transformer import DetectionTransformer

# Weights with a row for each class. The denoising embedding has one more row, which is never read.
OF_CLASSES = re.compile(r"(^|\.)heads\.classes\.\d+\.(weight|bias)$|^denoising\.labels\.weight$")


def transfer_classes(
    trained: DetectionTransformer, known: Sequence[str], classes: Sequence[str]
) -> tuple[DetectionTransformer, list[str]]:
    """The trained detector for `classes`, and the names among them that are new to it.

    Every weight is kept but those of classes that are not in `known`, the class names of `trained`.
    The order of the names does not matter; new classes start from the initial values of a detector.
    """
    settings = {**trained.settings, "num_classes": len(classes)}
    detector = build_detector(**settings)
    weights, fresh = trained.state_dict(), detector.state_dict()
    rows = [(new, known.index(name)) for new, name in enumerate(classes) if name in known]
    with torch.no_grad():
        for name, value in fresh.items():
            if OF_CLASSES.search(name):
                for new, old in rows:
                    value[new] = weights[name][old]
            else:
                value.copy_(weights[name])
    return detector, [name for name in classes if name not in known]
