"""A detector made ready for inference finds what the detector as it was trained finds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from od_detr.detectors import DetectionTransformer, build_detector
from od_detr.errors import InputError
from od_detr.inference.precision import choose_precision, computing, fold_norms, prepare
from od_detr.inference.predictor import Predictor
from od_detr.nn import encoder
from od_detr.structures import Batch, Targets

CPU = torch.device("cpu")
ARCHITECTURES = ("deformable-detr-plus", "dab-deformable-detr", "dino-4scale")


def lively_detector(model: str = ARCHITECTURES[0], frozen: bool = True) -> DetectionTransformer:
    """A small detector whose norms and heads do something."""
    torch.manual_seed(0)
    detector = build_detector(
        model,
        3,
        backbone="resnet18",
        backbone_frozen=frozen,
        backbone_options={"channels": (16, 24, 32, 48), "layers": (1, 1, 1, 1)},
        hidden_dim=64,
        encoder_layers=2,
        decoder_layers=2,
        queries=20,
        feedforward=128,
    ).eval()
    with torch.no_grad():
        for name, value in (*detector.named_buffers(), *detector.named_parameters()):
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif ".heads." in name:
                value += 0.05 * torch.randn_like(value)
    return detector


def noise(images: int = 2, size: int = 128, padded: bool = False) -> Batch:
    pixels = torch.randint(
        256, (images, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    padding = torch.zeros(images, size, size, dtype=torch.bool)
    padding[-1, size // 2 :] = padded
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), (0,) * images)
    return Batch(pixels, padding, nothing, tuple(range(images)), ((size, size),) * images)


@pytest.mark.parametrize("frozen", [True, False])
def test_folded_norms_leave_the_maps_as_they_are(frozen: bool) -> None:
    detector = lively_detector(frozen=frozen)
    images = torch.randn(1, 3, 64, 64)
    before = detector.backbone(detector.backbone.stem(images))
    fold_norms(detector.backbone.features)
    assert not any(
        isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)) for module in detector.modules()
    )
    for folded, each in zip(detector.backbone(detector.backbone.stem(images)), before, strict=True):
        torch.testing.assert_close(folded, each, rtol=1e-4, atol=1e-4)


def test_a_norm_beside_another_reader_of_its_convolution_is_left() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3).eval()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.convolution(images)
            return maps + self.norm(maps)

    network = Shortcut()
    fold_norms(network)
    assert type(network.norm) is nn.BatchNorm2d


@pytest.mark.parametrize("model", ARCHITECTURES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.slow
def test_bfloat16_moves_boxes_by_less_than_a_pixel_and_scores_by_less_than_a_fiftieth(
    model: str, padded: bool
) -> None:
    detector, batch = lively_detector(model), noise(padded=padded)
    predictions = {}
    tokens = None
    for precision in ("32", "bf16"):
        with torch.inference_mode(), computing(precision, CPU):
            ready = prepare(detector, precision)
            scene = ready.encode(
                batch, tokens=tokens
            )  # a two-stage detector is compared query by query
            tokens = scene.tokens
            predictions[precision] = ready.decode(scene)["main"].predictions
    exact, half = predictions["32"], predictions["bf16"]
    assert half.boxes.dtype == half.logits.dtype == torch.float32
    assert (half.boxes - exact.boxes).abs().max() * 128 < 1
    assert (half.logits.sigmoid() - exact.logits.sigmoid()).abs().max() < 0.02
    assert not torch.equal(half.logits, exact.logits)  # or bfloat16 was not used


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_a_prepared_detector_equals_the_one_it_was_copied_from(model: str) -> None:
    detector, batch = lively_detector(model), noise()
    weights = {name: value.clone() for name, value in detector.state_dict().items()}
    found = Predictor(detector, ["a", "b", "c"], precision="32").detect(batch)
    with torch.no_grad():
        expected = detector.detect(batch)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_knowing_that_nothing_is_padded_changes_no_prediction(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, batch = lively_detector(model), noise()
    with torch.no_grad():
        known = detector(batch)["main"].predictions
        monkeypatch.setattr(encoder, "nothing_padded", lambda padding: False)
        unknown = detector(batch)["main"].predictions
    for left, right in zip(dataclasses.astuple(known), dataclasses.astuple(unknown), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="--precision 8"):
        choose_precision("8", CPU)


def test_full_memory_is_one_line_and_other_errors_pass() -> None:
    refused = pytest.raises(InputError, match="memory is full; give a smaller --batch-size")
    with refused, computing("32", torch.device("cpu")):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes"), computing("32", torch.device("cpu")):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
