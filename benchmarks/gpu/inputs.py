"""Inputs of deformable attention as the encoder and the decoder give them."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.attention import cell_centres
from od_detr.ops.reference import LevelShapes

HEADS, CHANNELS, POINTS, QUERIES, BATCH = 8, 32, 4, 300, 2
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pyramid(image: tuple[int, int]) -> LevelShapes:
    """(height, width) of the levels of strides 8, 16, 32 and 64."""
    height, width = image
    return tuple((-(-height // stride), -(-width // stride)) for stride in (8, 16, 32, 64))


def attention_inputs(
    image: tuple[int, int], site: str, dtype: torch.dtype, device: str
) -> tuple[Tensor, LevelShapes, Tensor, Tensor, Tensor]:
    """Value, shapes, anchors, offsets and logits with gradients, new random numbers at each call.

    At the "encoder" there is a query a cell, which samples around itself; at the "decoder" 300
    boxes.
    """
    shapes = pyramid(image)
    anchors = torch.cat([cell_centres(height, width) for height, width in shapes]).to(device)
    tokens = len(anchors)
    if site == "decoder":
        anchors = torch.rand(QUERIES, 4, device=device)
        anchors = anchors * anchors.new_tensor([1, 1, 0.3, 0.3])
    samples = (BATCH, len(anchors), HEADS, len(shapes), POINTS)
    value = torch.randn(BATCH, tokens, HEADS, CHANNELS, device=device).to(dtype)
    offsets = torch.randn(*samples, 2, device=device) * 2
    logits = torch.randn(samples, device=device)
    anchors = anchors[None, :, None].expand(BATCH, -1, len(shapes), -1).contiguous()
    leaves = (each.requires_grad_() for each in (value, offsets, logits))
    value, offsets, logits = leaves
    return value, shapes, anchors, offsets, logits
