"""Initial queries: learned with a position, learned with an anchor, or selected from the memory."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from od_detr.nn.encoder import Memory
from od_detr.nn.heads import Heads
from od_detr.structures import GroupOutput, Predictions, QueryGroup, QuerySet


class PositionedQueries(nn.Module):
    """Learned content and position.

    A linear layer turns the position into an anchor point (Deformable-DETR).
    """

    def __init__(self, num_queries: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_queries, 2 * dim)
        self.reference_points = nn.Linear(dim, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(self, memory: Memory) -> QuerySet:
        """The same queries for every image."""
        images = memory.tokens.shape[0]
        position, content = self.embedding.weight.expand(images, -1, -1).chunk(2, -1)
        # In half precision anchors would be off by pixels.
        with torch.autocast(position.device.type, enabled=False):
            centres = self.reference_points(position).sigmoid()
        return QuerySet(content, torch.cat([centres, torch.zeros_like(centres)], -1), position)


class AnchoredQueries(nn.Module):
    """Learned content and learned anchor boxes, kept as logits (DAB-DETR)."""

    def __init__(self, num_queries: int, dim: int) -> None:
        super().__init__()
        self.content = nn.Embedding(num_queries, dim)
        self.anchors = nn.Embedding(num_queries, 4)

    def forward(self, memory: Memory) -> QuerySet:
        """The same queries for every image."""
        images = memory.tokens.shape[0]
        anchors = self.anchors.weight.sigmoid()
        return QuerySet(self.content.weight.expand(images, -1, -1), anchors.expand(images, -1, -1))


class SelectedQueries(nn.Module):
    """Mixed query selection: learned content, anchors from the most promising memory tokens (DINO,
    two-stage).

    Every token proposes a box around its own cell; the encoder's heads score and refine it.
    """

    def __init__(self, num_queries: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.content = nn.Embedding(num_queries, dim)
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.heads = Heads(dim, num_classes, num_layers=1, shared=True)

    @staticmethod
    def proposals(memory: Memory) -> Float[Tensor, "B S 4"]:
        """Logits of every token's own box, +inf where it is padding or leaves (0.01, 0.99)."""
        sizes = [
            memory.tokens.new_full((h * w,), 0.05 * 2.0**level)
            for level, (h, w) in enumerate(memory.shapes)
        ]
        size = torch.cat(sizes)[None, :, None].expand(memory.tokens.shape[0], -1, 2).float()
        boxes = torch.cat([memory.cell_centres(), size], -1)
        inside = ((boxes > 0.01) & (boxes < 0.99)).all(-1)
        if memory.padding is not None:
            inside = inside & ~memory.padding
        return torch.log(boxes / (1 - boxes)).masked_fill(~inside[..., None], float("inf"))

    def forward(
        self, memory: Memory, tokens: Int[Tensor, "B Q"] | None = None
    ) -> tuple[QuerySet, GroupOutput, Int[Tensor, "B Q"]]:
        """Selects the initial queries.

        Args:
            memory: the encoder's tokens.
            tokens: tokens to select, so that a teacher follows its student; None takes those of
                best class score.

        Returns:
            The initial queries, the encoder's own predictions (group "encoder"), and the selected
            tokens.
        """
        proposals = self.proposals(memory)
        kept = memory.tokens.masked_fill(~proposals[..., :1].isfinite(), 0.0)
        described = self.norm(self.project(kept))
        scores = self.heads.classify(described, 0)
        if tokens is None:
            most = min(self.num_queries, scores.shape[1])  # a small image has fewer tokens
            tokens = scores.max(-1).values.topk(most, dim=1).indices

        def gather(values: Tensor) -> Tensor:
            return values.gather(1, tokens[..., None].expand(-1, -1, values.shape[-1]))

        deltas = self.heads.box_deltas(gather(described), 0)
        boxes = (deltas + gather(proposals)).sigmoid()
        content = self.content.weight[: tokens.shape[1]].expand(boxes.shape[0], -1, -1)
        queries = QuerySet(content, boxes.detach())
        predictions = Predictions(gather(scores)[None], boxes[None])
        group = QueryGroup("encoder", queries, own=True)
        return queries, GroupOutput(group, (queries,), predictions), tokens
