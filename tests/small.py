"""Small detectors and crowded batches to test laws on."""

from __future__ import annotations

from functools import cache

import torch

from od_detr.detectors import DetectionTransformer, Encoded, build_detector
from od_detr.structures import Batch, Targets

CLASSES = 3
SIZES = {
    "hidden_dim": 32,
    "heads": 4,
    "points": 2,
    "encoder_layers": 1,
    "feedforward": 48,
    "backbone": "resnet18",
}
TINY = {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)}


def small_detector(
    model: str, num_classes: int = CLASSES, seed: int = 0, **sizes
) -> DetectionTransformer:
    """A detector with a tiny backbone and perturbed weights, so that its predictions differ."""
    torch.manual_seed(seed)
    chosen = SIZES | {"decoder_layers": 3, "queries": 8, "backbone_options": TINY} | sizes
    if model.startswith("dino"):
        chosen.setdefault("denoising", 2)
    detector = build_detector(model, num_classes, **chosen)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return detector


def small_batch(
    counts: tuple[int, ...] = (3, 0, 5), num_classes: int = CLASSES, seed: int = 0
) -> Batch:
    """Images of 64 px, the last one padded, with objects that crowd around two places."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (len(counts), 3, 64, 64), dtype=torch.uint8, generator=generator)
    padding = torch.zeros(len(counts), 64, 64, dtype=torch.bool)
    padding[-1, 48:] = padding[-1, :, 56:] = True
    return Batch(
        images, padding, crowded_targets(counts, num_classes, seed), tuple(range(len(counts)))
    )


def crowded_targets(counts: tuple[int, ...], num_classes: int = CLASSES, seed: int = 0) -> Targets:
    """Objects that crowd around two places."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    places = torch.tensor([[0.4, 0.4], [0.6, 0.5]])[torch.randint(2, (total,), generator=generator)]
    centres = places + 0.08 * torch.rand(total, 2, generator=generator)
    boxes = torch.cat([centres, 0.2 + 0.2 * torch.rand(total, 2, generator=generator)], 1)
    return Targets(boxes, torch.randint(num_classes, (total,), generator=generator), counts)


@cache
def encoded_batch(model: str) -> tuple[DetectionTransformer, Encoded]:
    """A detector of an architecture and a batch encoded by it, made once.

    Objectives need its queries only.
    """
    extra = {"denoising": 1} if model.startswith("dino") else {}
    detector = small_detector(model, 2, decoder_layers=2, queries=6, **extra)
    with torch.no_grad():
        return detector, detector.encode(small_batch((1, 1, 1), 2))
