"""Backbones that work channels-last or insist on a size give maps like any other."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from od_detr.detectors import build_detector
from od_detr.errors import InputError
from od_detr.nn.backbone import Backbone, feature_info
from od_detr.structures import Batch, Targets

SWIN, CONVNEXT, MAMBA = "swin_tiny_patch4_window7_224", "convnext_atto", "mambaout_femto"
SMALL = {
    SWIN: {"depths": (2, 2, 1, 1), "embed_dim": 8, "num_heads": (1, 2, 2, 4)},
    CONVNEXT: {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    MAMBA: {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
}
STRIDES = (4, 8, 16, 32)


def small(name: str, strides: tuple[int, ...] = STRIDES, **options: object) -> Backbone:
    torch.manual_seed(0)
    return Backbone(name, strides, options=SMALL[name] | options, frozen=True)


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(64, 96), (128, 64)])
@pytest.mark.parametrize("name", SMALL)
def test_maps_have_their_channels_first_and_their_strides(name: str, size: tuple[int, int]) -> None:
    backbone = small(name, STRIDES[1:])
    maps = backbone(backbone.stem(images(*size)))
    assert feature_info(backbone.features).reduction() == [8, 16, 32]
    for each, channels, stride in zip(maps, backbone.channels, STRIDES[1:], strict=True):
        assert each.shape == (1, channels, size[0] // stride, size[1] // stride)
    sum(each.square().mean() for each in maps).backward()
    frozen = {key for key, value in backbone.named_parameters() if not value.requires_grad}
    assert frozen
    assert all(
        (value.grad is None) == (key in frozen) for key, value in backbone.named_parameters()
    )


def test_sides_need_not_be_multiples_of_a_patch() -> None:
    backbone = small(SWIN)
    maps = backbone(backbone.stem(images(50, 71)))
    assert [tuple(each.shape[2:]) for each in maps] == [
        (-(-50 // stride), -(-71 // stride)) for stride in STRIDES
    ]


@pytest.mark.parametrize("name", SMALL)
def test_the_stem_and_the_rest_are_the_whole_network(name: str) -> None:
    backbone = small(name).eval()
    assert 0 < backbone.shared_modules < len(list(backbone.features.children()))
    with torch.no_grad():
        split, whole = backbone(backbone.stem(images(64, 96))), backbone.features(images(64, 96))
    for ours, theirs in zip(split, whole, strict=True):
        assert torch.equal(ours, theirs if name == CONVNEXT else theirs.permute(0, 3, 1, 2))


def test_the_stem_a_teacher_is_given_is_its_own_though_the_network_drops_paths() -> None:
    backbone = small(SWIN, drop_path_rate=0.9)
    stems = [
        backbone.stem(images(64, 64)),
        backbone.train().stem(images(64, 64)),
        backbone.eval().stem(images(64, 64)),
    ]
    assert torch.equal(stems[0], stems[2])
    assert torch.equal(stems[1], stems[2])
    assert any(module.training for module in backbone.train().features.modules())


@pytest.mark.parametrize("name", [SWIN, CONVNEXT])
def test_maps_and_names_are_timms_own(name: str, tmp_path) -> None:
    """At the size the network was made for, from weights of a network that was built without us."""
    torch.manual_seed(2)
    theirs = timm.create_model(name, pretrained=False, **SMALL[name]).eval()
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    backbone = Backbone(
        name, STRIDES, str(tmp_path / "weights.safetensors"), options=SMALL[name]
    ).eval()
    with torch.no_grad():
        wanted = theirs.forward_intermediates(images(224, 224), intermediates_only=True)
        for ours, expected in zip(backbone(backbone.stem(images(224, 224))), wanted, strict=True):
            assert_close(ours, expected, rtol=0, atol=1e-5)
    bare = timm.create_model(name, features_only=True, pretrained=False, **SMALL[name])
    assert {f"features.{key}" for key in bare.state_dict()} == set(backbone.state_dict())


def test_what_the_user_asks_of_the_model_comes_first() -> None:
    backbone = small(SWIN, strict_img_size=True)
    with pytest.raises(AssertionError, match="224"):
        backbone(backbone.stem(images(64, 64)))
    with pytest.raises(InputError, match="'colour'"):
        small(CONVNEXT, colour="red")


def test_a_detector_on_swin_trains_and_detects() -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_dim": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "queries": 5,
        "feedforward": 24,
    }
    detector = build_detector(
        "dino-4scale", 3, backbone=SWIN, backbone_options=SMALL[SWIN], **sizes
    )
    pixels = torch.randint(256, (2, 3, 50, 71), dtype=torch.uint8)
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), (0, 0))
    batch = Batch(
        pixels, torch.zeros(2, 50, 71, dtype=torch.bool), nothing, (0, 1), ((50, 71), (50, 71))
    )
    detector(batch)["main"].predictions.logits.sum().backward()
    assert all(value.grad is not None for value in detector.backbone.features.layers_0.parameters())
    assert detector.eval().detect(batch).boxes_xyxy.isfinite().all()
