"""Multi-scale deformable attention in plain PyTorch: exact, for any dtype and device, and
exportable.

The formulation of Deformable DETR's own test: sample every level with `grid_sample`, then weight
and sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import SymInt, Tensor

LevelShapes = tuple[tuple[int | SymInt, int | SymInt], ...]
"""(height, width) of each level, on the host; symbolic while a graph of any size is exported."""


def reference_attention(
    value: Tensor, shapes: LevelShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """What every other backend must equal. Arguments as in `od_detr.ops.deformable_attention`, of
    one dtype.
    """
    batch, _, heads, channels = value.shape
    _, queries, _, levels, points, _ = locations.shape
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # grid_sample counts from -1 to 1
    sampled, start = [], 0
    for level, (height, width) in enumerate(shapes):
        # Sliced: exported, a split of unknown lengths is a sequence, which few runtimes have.
        end = start + height * width
        tokens = value[:, start:end].flatten(2).transpose(1, 2)
        image = tokens.reshape(batch * heads, channels, height, width)
        start = end
        sampled.append(F.grid_sample(image, grids[:, :, level], align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    output = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1)
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
