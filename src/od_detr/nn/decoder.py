"""The decoder of Eq. 1: query groups refined against the memory, layer by layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from od_detr.nn.attention import DeformableAttention, GroupLayout, SelfAttention
from od_detr.nn.encoder import Memory
from od_detr.nn.heads import Heads, anchor_logits
from od_detr.nn.position import AnchorPosition
from od_detr.structures import GroupOutput, Predictions, QueryGroup, QuerySet


class DecoderLayer(nn.Module):
    """Self-attention within groups, deformable attention to the memory, feed-forward; post-norm."""

    def __init__(
        self, dim: int, heads: int, levels: int, points: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = DeformableAttention(dim, heads, levels, points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        content: Float[Tensor, "B Q D"],
        position: Float[Tensor, "B Q D"],
        anchors: Float[Tensor, "B Q L 4"],
        memory: Memory,
        layout: GroupLayout,
    ) -> Float[Tensor, "B Q D"]:
        """One layer: the content of all queries, refined.

        Args:
            content: content of the queries of all groups.
            position: their positional embeddings.
            anchors: their boxes (or points) as each feature level sees them, normalised cxcywh.
            memory: the encoded image.
            layout: which queries see each other.
        """
        content = self.norm2(content + self.dropout(self.self_attn(content, position, layout)))
        attended = self.cross_attn(
            content + position, anchors, memory.tokens, memory.padding, memory.shapes
        )
        content = self.norm1(content + self.dropout(attended))
        hidden = self.linear2(self.dropout(F.relu(self.linear1(content))))
        return self.norm3(content + self.dropout(hidden))


class Decoder(nn.Module):
    """Decodes any number of query groups in one pass; each layer projects the memory once for all
    of them.

    Args:
        layers: the decoder layers.
        heads: class and box heads.
        position: derives positional embeddings from the anchors; None if the queries bring their
            own.
        norm: applied before the heads.
        look_forward_twice: lets a layer's loss reach the refinement of the layer before it (DINO,
            section 3.5).
        eps: bounds the logits that boxes are refined in.
    """

    def __init__(
        self,
        layers: list[DecoderLayer],
        heads: Heads,
        position: AnchorPosition | None = None,
        norm: nn.LayerNorm | None = None,
        look_forward_twice: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.heads, self.position, self.norm = heads, position, norm
        self.look_forward_twice, self.eps = look_forward_twice, eps

    def forward(self, groups: list[QueryGroup], memory: Memory) -> list[GroupOutput]:
        """Decodes the groups, which do not see one another, and returns them in their order."""
        layout = GroupLayout(groups)
        stages = [QuerySet.cat([group.queries for group in groups])]
        ratios = memory.ratios.repeat(1, 1, 2)[:, None]
        reference = stages[0].anchors.float()
        logits, boxes = [], []
        for depth, layer in enumerate(self.layers):
            queries = stages[-1]
            anchors = queries.anchors[:, :, None] * ratios
            if self.position is None:
                position = queries.position
            else:
                position = self.position(anchors[:, :, 0], queries.content, depth)
            content = layer(queries.content, position, anchors, memory, layout)
            read = content if self.norm is None else self.norm(content)
            logits.append(self.heads.classify(read, depth))
            boxes.append(self._refine(read, reference, depth))
            # Looking forward twice, the next box keeps the gradient of this refinement, read off
            # the raw content.
            twice = self.look_forward_twice
            reference = (
                self._refine(content, queries.anchors, depth) if twice else boxes[-1].detach()
            )
            stages.append(QuerySet(content, reference.detach(), queries.position))
        return self._split(groups, layout, stages, torch.stack(logits), torch.stack(boxes))

    def _refine(
        self, content: Float[Tensor, "B Q D"], reference: Float[Tensor, "B Q 4"], depth: int
    ) -> Float[Tensor, "B Q 4"]:
        return (
            self.heads.box_deltas(content, depth) + anchor_logits(reference, self.eps)
        ).sigmoid()

    @staticmethod
    def _split(
        groups: list[QueryGroup],
        layout: GroupLayout,
        stages: list[QuerySet],
        logits: Tensor,
        boxes: Tensor,
    ) -> list[GroupOutput]:
        outputs = []
        for group in groups:
            span = layout.spans[group.name]
            predictions = Predictions(logits[:, :, span], boxes[:, :, span])
            queries = tuple(stage[span] for stage in stages)
            outputs.append(GroupOutput(group, queries, predictions))
        return outputs
