"""Turns backbone maps into a pyramid of equal width."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Neck(nn.Module):
    """Projects every backbone map to `dim` channels and adds coarser levels by strided convolution.

    The first added level is made from the last backbone map, each further one from the level before
    it.
    """

    def __init__(self, channels: list[int], dim: int, num_levels: int) -> None:
        super().__init__()
        if num_levels < len(channels):
            raise ValueError(f"{num_levels} levels cannot hold the backbone's {len(channels)} maps")
        norm_groups = math.gcd(32, dim)
        convolutions = [nn.Conv2d(width, dim, 1) for width in channels]
        for level in range(len(channels), num_levels):
            width = channels[-1] if level == len(channels) else dim
            convolutions.append(nn.Conv2d(width, dim, 3, stride=2, padding=1))
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
        self.projections = nn.ModuleList(
            nn.Sequential(convolution, _GroupNorm(norm_groups, dim)) for convolution in convolutions
        )

    def forward(
        self, features: list[Float[Tensor, "B _c _h _w"]]
    ) -> list[Float[Tensor, "B D _h _w"]]:
        """Projects the backbone's maps to D channels and adds coarser levels below the last one."""
        pyramid = [
            project(feature) for project, feature in zip(self.projections, features, strict=False)
        ]
        for level in range(len(features), len(self.projections)):
            pyramid.append(
                self.projections[level](features[-1] if level == len(features) else pyramid[-1])
            )
        return pyramid


class _GroupNorm(nn.GroupNorm):
    """Group normalisation that accepts one image whose map has a single pixel.

    With one channel in a group there is a single value to normalise. The functional form refuses
    that for a batch of one image, and for no other batch; the operator behind it gives zero for
    each.
    """

    def forward(self, input: Float[Tensor, "B D _h _w"]) -> Float[Tensor, "B D _h _w"]:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
