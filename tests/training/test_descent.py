"""Laws of a step that moves the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.small import small_detector

from od_detr.detectors import DetectionTransformer
from od_detr.options import TrainOptions
from od_detr.training.descent import Descent

OPTIONS = TrainOptions(data="data", epochs=1, precision="fp16")


def descent(detector: DetectionTransformer, precision: str) -> Descent:
    return Descent(detector, replace(OPTIONS, precision=precision), 1, "cpu")


def moved(way: Descent, factor: float = 1.0) -> Mapping[str, Any]:
    """The state after a step whose gradients are those of the squared weights times `factor`."""
    way.begin()
    loss = torch.stack([each.square().sum() for each in way.detector.parameters()]).sum()
    way.backward(loss * factor)
    way.move(way.clipped_norm().isfinite().float())
    return way.state_dict()


@pytest.mark.parametrize("before", ["fp16", "32"])
@pytest.mark.parametrize("after", ["fp16", "bf16", "32"])
def test_a_run_goes_on_in_another_precision(before: str, after: str) -> None:
    """That is the advice where fp16 leads to values that are not finite."""
    detector = small_detector("deformable-detr-plus")
    saved = moved(descent(detector, before))
    further = descent(detector, after)
    further.load_state_dict(dict(saved))
    weight = detector.encoder.layers[0].linear1.weight
    for factor, moves in ((1.0, True), (float("inf"), False)):
        kept = weight.clone()
        moved(further, factor)
        assert torch.equal(weight, kept) != moves
