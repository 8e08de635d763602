"""Losses on predictions, element by element and always in float32.

The caller sums and normalises.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from od_detr.boxes import paired_giou


def focal_loss(
    logits: Float[Tensor, "*shape"],
    labels: Float[Tensor, "*shape"],
    alpha: float | None = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, "*shape"]:
    """Sigmoid focal loss of hard `labels` in {0, 1}; `alpha` weighs positives against negatives."""
    scores = logits.sigmoid()
    distance = scores + labels - 2 * scores * labels
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * distance**gamma
    return loss if alpha is None else loss * (alpha * labels + (1 - alpha) * (1 - labels))


def quality_focal_loss(
    logits: Float[Tensor, "*shape"],
    quality: Float[Tensor, "*shape"],
    alpha: float | None = None,
    gamma: float = 2.0,
) -> Float[Tensor, "*shape"]:
    """Quality focal loss, Eq. 2: cross-entropy to a soft label, modulated by |quality - score| **
    gamma.

    Args:
        logits: class logits.
        quality: soft labels in [0, 1], without gradient.
        alpha: weight of entries of positive quality against the others; the paper has none.
        gamma: exponent of the modulation.
    """
    distance = (quality - logits.sigmoid()).abs()
    loss = F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * distance**gamma
    return loss if alpha is None else loss * torch.where(quality > 0, alpha, 1 - alpha)


def box_distances(
    boxes: Float[Tensor, "M 4"], wanted: Float[Tensor, "M 4"], eps: float = 0.0
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """L1 distance of (cx, cy, w, h) and 1 - GIoU, pair by pair."""
    return (boxes - wanted).abs().sum(-1), 1 - paired_giou(boxes, wanted, eps)
