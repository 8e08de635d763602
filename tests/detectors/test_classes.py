"""Classes of the same name keep their weights, whatever their order and company."""

from __future__ import annotations

import pytest
import torch

from od_detr.detectors import build_detector
from od_detr.detectors.classes import OF_CLASSES, transfer_classes

TINY = {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)}
OLD = ["green", "red"]


@pytest.mark.parametrize("classes", [["red", "green"], ["blue", "red", "green"], ["red"]])
@pytest.mark.parametrize("model", ["deformable-detr-plus", "dino-4scale"])
def test_classes_of_the_same_name_keep_their_weights(model: str, classes: list[str]) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 2, "queries": 7}
    trained = build_detector(
        model, 2, backbone="resnet18", backbone_options=TINY, feedforward=24, **sizes
    )
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += torch.randn_like(parameter)
    detector, new = transfer_classes(trained, OLD, classes)
    assert new == [name for name in classes if name not in OLD]
    before = trained.state_dict()
    for name, value in detector.state_dict().items():
        if not OF_CLASSES.search(name):
            assert torch.equal(value, before[name])
            continue
        for row, title in enumerate(classes):
            if title in OLD:
                assert torch.equal(value[row], before[name][OLD.index(title)])
