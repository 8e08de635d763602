"""Multi-scale deformable attention in plain PyTorch, in the form that suits the shape: where no
kernel can be had.

All forms equal the reference; measured on one thread they are 1.1 to 5 times faster.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from od_detr.ops.reference import LevelShapes
from od_detr.transfers import to_device_of

SAMPLES_AT_ONCE = 2**20
"""Numbers sampled before they are summed: few enough to stay in a cache."""


def eager_attention(
    value: Tensor, shapes: LevelShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """Arguments as in `od_detr.ops.deformable_attention`, of one dtype."""
    needs_grad = torch.is_grad_enabled() and any(
        t.requires_grad for t in (value, locations, weights)
    )
    if value.is_cuda and needs_grad and torch.are_deterministic_algorithms_enabled():
        return gathered(
            value, shapes, locations, weights
        )  # CUDA's grid_sample has no deterministic backward
    # A bag reads whole rows of channels, so it wants long ones; with gradients, few of them.
    channels, queries, tokens = value.shape[-1], locations.shape[1], value.shape[1]
    if channels >= 64 or (channels >= 32 and (not needs_grad or 8 * queries <= tokens)):
        return bagged(value, shapes, locations, weights)
    return accumulated(value, shapes, locations, weights)


def accumulated(value: Tensor, shapes: LevelShapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Like the reference, but transposing once, and sampling a level of a few heads at a time."""
    batch, _, heads, channels = value.shape
    _, queries, _, levels, points, _ = locations.shape
    maps = value.permute(0, 2, 3, 1).flatten(0, 1)
    # Queries last: the sum over the points then runs along memory.
    grids = (
        (2 * locations - 1)
        .permute(3, 0, 2, 4, 1, 5)
        .contiguous()
        .view(levels, batch * heads, points, queries, 2)
    )
    weights = (
        weights.permute(3, 0, 2, 4, 1).contiguous().view(levels, batch * heads, 1, points, queries)
    )
    few = max(1, SAMPLES_AT_ONCE // max(1, channels * points * queries))
    chunks = zip(maps.split(few), grids.split(few, dim=1), weights.split(few, dim=1), strict=True)
    output = _ContiguousGradient.apply(
        torch.cat([_sum_over_levels(*chunk, shapes) for chunk in chunks])
    )
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()


def _sum_over_levels(maps: Tensor, grids: Tensor, weights: Tensor, shapes: LevelShapes) -> Tensor:
    """(N, D, S), (L, N, P, Q, 2) and (L, N, 1, P, Q) to (N, D, Q)."""
    output = maps.new_zeros(())
    levels = maps.split([height * width for height, width in shapes], dim=-1)
    for level, (height, width), grid, weight in zip(levels, shapes, grids, weights, strict=True):
        sampled = F.grid_sample(level.unflatten(-1, (height, width)), grid, align_corners=False)
        output = output + (sampled * weight).sum(2)
    return output


class _ContiguousGradient(torch.autograd.Function):
    """Identity. A batch of one would send back a strided gradient, slow at every level."""

    @staticmethod
    def forward(ctx, output: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> Tensor:
        return grad_output.contiguous()


def bagged(value: Tensor, shapes: LevelShapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Sums weighted cells into each output row, without writing the samples to memory."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    cells, shares = corners(value, shapes, locations, weights)
    bags = F.embedding_bag(
        cells.flatten(0, 2).flatten(1),
        value.reshape(-1, channels),
        mode="sum",
        per_sample_weights=shares.flatten(0, 2).flatten(1),
    )
    return bags.view(batch, queries, heads * channels)


def gathered(value: Tensor, shapes: LevelShapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Slow and large, but its backward adds in a fixed order under
    `torch.use_deterministic_algorithms`.
    """
    cells, shares = corners(value, shapes, locations, weights)
    taken = (
        value.reshape(-1, value.shape[-1]).index_select(0, cells.flatten()).view(*cells.shape, -1)
    )
    return (taken * shares.unsqueeze(-1)).sum((3, 4, 5)).flatten(2)


def corners(
    value: Tensor, shapes: LevelShapes, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The four cells around each sampling point, (B, Q, H, L, P, 4): row in `value.reshape(-1, D)`,
    and share of it.
    """
    batch, tokens, heads, _ = value.shape
    dtype = (
        torch.int32 if batch * tokens * heads < 2**31 else torch.int64
    )  # int32 is the faster index
    height, width = to_device_of(shapes, value, dtype).unsqueeze(-1).unbind(1)
    start = (height * width).cumsum(0, dtype=dtype) - height * width
    image = torch.arange(batch, device=value.device, dtype=dtype).view(-1, 1, 1, 1, 1)
    head = torch.arange(heads, device=value.device, dtype=dtype).view(-1, 1, 1)
    origin = (image * tokens + start) * heads + head

    cells, shares = [], []
    for row, row_share in _ends(locations[..., 1], height):
        for column, column_share in _ends(locations[..., 0], width):
            cells.append(origin + (row * width + column) * heads)
            shares.append(row_share * column_share * weights)
    return torch.stack(cells, -1), torch.stack(shares, -1)


def _ends(location: Tensor, size: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two cells a location falls between along one axis, and the share of each: 0 outside of
    the map.
    """
    position = location * size - 0.5
    low = position.detach().floor()
    ends = [(low, 1 - (position - low)), (low + 1, position - low)]
    return [
        (end.clamp(min=0).minimum(size - 1).to(size.dtype), share * ((end >= 0) & (end < size)))
        for end, share in ends
    ]
