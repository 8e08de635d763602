"""Torchvision's ResNet, from whose weights every DETR starts, and the sizes of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch.testing import assert_close
from torchvision.models.feature_extraction import create_feature_extractor

from od_detr.detectors import build_detector
from od_detr.nn.backbone import Backbone

MILLIONS = {
    "deformable-detr-plus": (40, 42),
    "dab-deformable-detr": (47, 49),
    "dino-4scale": (46, 48),
}


@pytest.mark.slow
def test_torchvisions_resnet_is_our_backbone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().eval()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    save_file(theirs.state_dict(), tmp_path / "resnet50.safetensors")
    backbone = Backbone("resnet50", weights=str(tmp_path / "resnet50.safetensors"))
    images = torch.randn(1, 3, 64, 96)
    stages = create_feature_extractor(theirs, {"layer2": "8", "layer3": "16", "layer4": "32"})
    with torch.no_grad():
        ours, wanted = backbone(backbone.stem(images)), stages(images)
    assert [feature.shape[1] for feature in ours] == backbone.channels
    for feature, expected in zip(ours, wanted.values(), strict=True):
        assert_close(feature, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("model", MILLIONS)
def test_the_number_of_parameters_is_the_papers(model: str) -> None:
    with torch.device("meta"):
        detector = build_detector(model, 91)
    low, high = MILLIONS[model]
    assert low <= sum(parameter.numel() for parameter in detector.parameters()) / 1e6 <= high
