"""Class and box heads of the decoder and the encoder."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from od_detr.boxes import inverse_sigmoid
from od_detr.nn.position import mlp

PRIOR = 0.01


class Heads(nn.Module):
    """One class head and one box head for each decoder layer, or one of each `shared` by all
    layers.

    Always computed in float32: box refinement works in logits, where half precision loses small
    boxes.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        num_layers: int,
        shared: bool = False,
        size_bias: float = -2.0,
    ) -> None:
        super().__init__()
        count = 1 if shared else num_layers
        classes = [nn.Linear(dim, num_classes) for _ in range(count)]
        boxes = [mlp(dim, dim, dim, 4) for _ in range(count)]
        for head in classes:
            nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))
        for layer, head in enumerate(boxes):
            weight, bias = head[-1].parameters()
            nn.init.zeros_(weight)
            nn.init.zeros_(bias)
            if layer == 0 and not shared:
                nn.init.constant_(bias[2:], size_bias)
        self.classes, self.boxes = nn.ModuleList(classes), nn.ModuleList(boxes)

    def classify(self, content: Float[Tensor, "B Q D"], layer: int) -> Float[Tensor, "B Q C"]:
        """Class logits of layer `layer`."""
        with torch.autocast(content.device.type, enabled=False):
            return self.classes[min(layer, len(self.classes) - 1)](content.float())

    def box_deltas(self, content: Float[Tensor, "B Q D"], layer: int) -> Float[Tensor, "B Q 4"]:
        """Change of the anchors' logits predicted by layer `layer`."""
        with torch.autocast(content.device.type, enabled=False):
            return self.boxes[min(layer, len(self.boxes) - 1)](content.float())


def anchor_logits(anchors: Float[Tensor, "*batch 4"], eps: float) -> Float[Tensor, "*batch 4"]:
    """Logits of the anchors, where refinement starts.

    The size of a point is unknown and starts at logit 0.
    """
    logits = inverse_sigmoid(anchors, eps)
    sizes = torch.where(anchors[..., 2:] > 0, logits[..., 2:], torch.zeros_like(logits[..., 2:]))
    return torch.cat([logits[..., :2], sizes], -1)
