"""Boxes: conversions, overlaps, and the logit they are refined in.

Unlike those of torchvision.ops, these functions broadcast over leading axes and can add the small
`eps` of the DAB-DETR and DINO code. Two empty boxes have overlap 0, never NaN.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def cxcywh_to_xyxy(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Centre and size -> corners, in any unit."""
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return torch.cat([centre - half, centre + half], -1)


def xyxy_to_cxcywh(boxes_xyxy: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Corners -> centre and size, in any unit."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def overlaps(
    first_xyxy: Float[Tensor, "*#batch 4"],
    second_xyxy: Float[Tensor, "*#batch 4"],
    eps: float = 0.0,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """IoU in [0, 1] and generalised IoU in [-1, 1] of boxes that broadcast against each other.

    `eps` is added to the areas that divide, as DAB-DETR and DINO do (1e-6); Deformable-DETR has
    none.
    """
    x1, y1, x2, y2 = first_xyxy.unbind(-1)
    u1, v1, u2, v2 = second_xyxy.unbind(-1)
    tiny = torch.finfo(first_xyxy.dtype).tiny
    inter = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0) * (
        torch.minimum(y2, v2) - torch.maximum(y1, v1)
    ).clamp(min=0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter
    hull = (torch.maximum(x2, u2) - torch.minimum(x1, u1)) * (
        torch.maximum(y2, v2) - torch.minimum(y1, v1)
    )
    iou = inter / (union + eps).clamp(min=tiny)
    return iou, iou - (hull - union) / (hull + eps).clamp(min=tiny)


def paired_iou(
    first: Float[Tensor, "*#batch 4"], second: Float[Tensor, "*#batch 4"], eps: float = 0.0
) -> Float[Tensor, "*batch"]:
    """IoU of (cx, cy, w, h) boxes, pair by pair, broadcasting."""
    return overlaps(cxcywh_to_xyxy(first), cxcywh_to_xyxy(second), eps)[0]


def paired_giou(
    first: Float[Tensor, "*#batch 4"], second: Float[Tensor, "*#batch 4"], eps: float = 0.0
) -> Float[Tensor, "*batch"]:
    """Generalised IoU of (cx, cy, w, h) boxes, pair by pair, broadcasting."""
    return overlaps(cxcywh_to_xyxy(first), cxcywh_to_xyxy(second), eps)[1]


def inverse_sigmoid(values: Float[Tensor, "*shape"], eps: float = 1e-5) -> Float[Tensor, "*shape"]:
    """logit(values), where `values` and 1 - `values` are at least `eps`.

    Deformable-DETR uses 1e-5, DAB-DETR and DINO 1e-3.
    """
    values = values.clamp(0, 1)
    return torch.log(values.clamp(min=eps) / (1 - values).clamp(min=eps))
