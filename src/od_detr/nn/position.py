"""Sine encodings of positions in the image and of anchors."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def _interleaved_sine(angles: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch F"]:
    """Sine of the even entries and cosine of the odd ones, in their places."""
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1).flatten(-2)


def _frequencies(features: int, temperature: float, device: torch.device) -> Float[Tensor, " F"]:
    exponent = (
        torch.arange(features, dtype=torch.float32, device=device).div(2, rounding_mode="floor")
        * 2
        / features
    )
    return temperature**exponent


def encode_image(
    padding: Bool[Tensor, "B H W"], dim: int, temperature: float = 10000.0, half_pixel: bool = True
) -> Float[Tensor, "B H W D"]:
    """Sine encoding of every cell, normalised by the valid extent; the first half of the channels
    encodes y.

    Args:
        padding: True where a cell is padding.
        dim: number of channels, D.
        temperature: of the frequencies (10000 in Deformable-DETR and DAB, 20 in DINO).
        half_pixel: measure a cell at its middle (Deformable-DETR, DAB) rather than at its far edge
            (DINO).
    """
    valid = ~padding
    half = dim // 2
    frequencies = _frequencies(half, temperature, padding.device)
    halves = []
    for axis in (1, 2):
        # Whole numbers: CUDA has no deterministic sum along an axis of floating-point ones.
        steps = valid.cumsum(axis, dtype=torch.int32).float()
        last = steps.select(axis, -1).unsqueeze(axis)
        places = (steps - 0.5 * half_pixel) / (last + 1e-6) * (2 * math.pi)
        halves.append(_interleaved_sine(places[..., None] / frequencies))
    return torch.cat(halves, -1)


@lru_cache(maxsize=16)
def encode_cells(
    height: int, width: int, dim: int, temperature: float, half_pixel: bool, device: torch.device
) -> Float[Tensor, "1 S D"]:
    """`encode_image` of a level without padding: the same for all images, so it is cached."""
    with torch.inference_mode(False), torch.no_grad():
        unpadded = torch.zeros(1, height, width, dtype=torch.bool, device=device)
        return encode_image(unpadded, dim, temperature, half_pixel).flatten(1, 2)


def encode_anchors(anchors: Float[Tensor, "*batch A"], features: int) -> Float[Tensor, "*batch F"]:
    """Sine encoding of boxes (A = 4) or points (A = 2).

    Each coordinate gets `features` numbers, in the order y, x, w, h.
    """
    # Sliced, because a list of indices would be uploaded, and the host would wait for it.
    ordered = torch.cat([anchors[..., 1:2], anchors[..., :1], anchors[..., 2:]], -1)
    angles = ordered[..., None] * (2 * math.pi) / _frequencies(features, 10000.0, anchors.device)
    return _interleaved_sine(angles).flatten(-2)


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class AnchorPosition(nn.Module):
    """Positional embedding of queries, derived from their anchors at every layer (DAB-DETR, DINO).

    With `scaled`, layers after the first multiply it by a function of the content (DAB-DETR).
    """

    def __init__(self, dim: int, scaled: bool = False) -> None:
        super().__init__()
        self.features = dim // 2
        self.embed = mlp(2 * dim, dim, dim)
        self.scale = mlp(dim, dim, dim) if scaled else None

    def forward(
        self, anchors: Float[Tensor, "B Q 4"], content: Float[Tensor, "B Q D"], layer: int
    ) -> Float[Tensor, "B Q D"]:
        """The embedding at a decoder layer, counted from 0."""
        position = self.embed(encode_anchors(anchors, self.features).to(content.dtype))
        return position if self.scale is None or layer == 0 else position * self.scale(content)
