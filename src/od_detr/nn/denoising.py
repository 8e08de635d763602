"""Contrastive denoising (DINO, section 3.3): noised ground truth as queries of known matching."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from od_detr.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from od_detr.structures import Matching, QueryGroup, QuerySet, Targets
from od_detr.transfers import to_device_of

DRAWS = 10  # random numbers a copy: chance and label, then four signs and four parts of the corners


class DenoisingQueries(nn.Module):
    """Builds the denoising group of a batch.

    Each block of the group holds, for every image, one positive and one negative copy of each
    target: slots [0, G) are positives with noise below half the box, slots [G, 2 * G) negatives
    with noise beyond it. Empty slots stay in: they attend, and are trained as background.

    Args:
        dim: width of the queries, D.
        num_classes: number of classes, C.
        number: copies of the fullest image's targets, positives and negatives counted once (DINO:
            100).
        label_noise: share of labels at risk; half of them are replaced by a random class (DINO:
            0.5).
        box_noise: noise as a share of half the box (DINO's scripts: 1.0).
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        number: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
    ) -> None:
        super().__init__()
        self.number, self.label_noise, self.box_noise = number, label_noise, box_noise
        self.num_classes = num_classes
        self.labels = nn.Embedding(num_classes + 1, dim)

    def blocks(self, most: int) -> int:
        """Number of blocks for a batch whose fullest image has `most` targets.

        For fewer than 50 copies the official code uses twice their number, whatever the targets; so
        do we.
        """
        doubled = 2 * self.number
        return max(1, doubled // (2 * most) if doubled >= 100 else doubled)

    def forward(self, targets: Targets, num_layers: int) -> QueryGroup:
        """The denoising group, matched at each of `num_layers` decoder layers.

        A batch without targets gets a group of padding only. It has no loss, but it keeps the label
        embedding in the graph; without it other ranks would wait for its gradient.
        """
        most = max(1, targets.most if targets.share is None else targets.share.most)
        blocks = self.blocks(most) if len(targets) else 1
        device = targets.boxes.device
        image, slot = (
            to_device_of(place, targets.boxes) for place in (targets.image, targets.slot)
        )
        noise = self.noise(targets, blocks)  # (block, polarity, target)
        labels = self.noised_labels(
            targets.labels.expand(blocks, 2, -1), noise[..., 0], noise[..., 1]
        )
        boxes = self.noised_boxes(
            targets.boxes.expand(blocks, 2, -1, -1), noise[..., 2:6].round(), noise[..., 6:]
        )
        places = (
            torch.arange(blocks, device=device)[:, None, None] * 2 * most
            + torch.arange(2, device=device)[:, None] * most
            + slot
        )
        content = self.labels.weight.new_zeros(
            len(targets.counts), blocks * 2 * most, self.labels.embedding_dim
        )
        anchors = boxes.new_full((*content.shape[:2], 4), 0.5)
        owners = image.expand(blocks, 2, -1)
        content = content.index_put((owners, places), self.labels(labels).to(content.dtype))
        anchors[owners, places] = inverse_sigmoid(boxes, 1e-3).sigmoid()
        matching = self._matching(targets, blocks, num_layers).to(device)
        padding = (
            None if len(targets) else torch.ones(content.shape[:2], dtype=torch.bool, device=device)
        )
        return QueryGroup(
            "denoising",
            QuerySet(content, anchors),
            blocks,
            sees=("main",),
            padding=padding,
            matching=matching,
            own=True,
        )

    @staticmethod
    def noise(targets: Targets, blocks: int) -> Float[Tensor, "{blocks} 2 N 10"]:
        """Uniform random numbers in [0, 1) for every copy of every target.

        An image with a key draws its own, on the host: they depend neither on the device nor on
        which other images share its batch.
        """
        if not targets.keys:
            return torch.rand(blocks, 2, len(targets), DRAWS, device=targets.boxes.device)
        drawn = [
            torch.rand(blocks, 2, count, DRAWS, generator=torch.Generator().manual_seed(key))
            for key, count in zip(targets.keys, targets.counts, strict=True)
        ]
        return to_device_of(torch.cat(drawn, 2), targets.boxes)

    def noised_labels(
        self,
        labels: Int[Tensor, "*s"],
        chance: Float[Tensor, "*s"],
        label: Float[Tensor, "*s"],
    ) -> Int[Tensor, "*s"]:
        """Replaces labels whose `chance` is below half the label noise by `label`, a random one."""
        random = (label * self.num_classes).long()
        return torch.where(chance < self.label_noise * 0.5, random, labels)

    def noised_boxes(
        self,
        boxes: Float[Tensor, "R 2 N 4"],
        signs: Float[Tensor, "R 2 N 4"],
        parts: Float[Tensor, "R 2 N 4"],
    ) -> Float[Tensor, "R 2 N 4"]:
        """Moves every corner by a part of half the box.

        `signs` (0 or 1) give the direction, and `parts` (in [0, 1)) the distance. Negatives move
        by one more half.
        """
        half = boxes[..., 2:].repeat(1, 1, 1, 2) / 2
        parts = parts + to_device_of([0.0, 1.0], parts)[:, None, None]
        corners = cxcywh_to_xyxy(boxes) + (2 * signs - 1) * parts * half * self.box_noise
        return xyxy_to_cxcywh(corners.clamp(0.0, 1.0))

    @staticmethod
    def _matching(targets: Targets, blocks: int, num_layers: int) -> Matching:
        """Positive slot s of every block predicts target s of its image, at every layer."""
        images = len(targets.counts)
        layer = torch.arange(num_layers)[:, None, None]
        block = torch.arange(blocks)[None, :, None]
        view = (layer * images + targets.image) * blocks + block
        return Matching(
            view.flatten(),
            targets.slot.expand(num_layers, blocks, -1).flatten(),
            torch.arange(len(targets)).expand(num_layers, blocks, -1).flatten(),
        )
