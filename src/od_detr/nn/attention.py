"""Attention: deformable over the memory, and self-attention within query groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from od_detr.ops import LevelShapes, deformable_sampling
from od_detr.structures import QueryGroup


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention: a query samples `points` locations per level near its
    anchor.

    Anchors are points (A = 2) or boxes (A = 4) in [0, 1] of each padded level. Locations and
    weights are float32 even under autocast. See `od_detr.ops.deformable_sampling`.
    """

    def __init__(self, dim: int, heads: int, num_levels: int, points: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of the {heads} heads")
        self.heads, self.num_levels, self.points = heads, num_levels, points
        self.sampling_offsets = nn.Linear(dim, heads * num_levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * num_levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def reset_parameters(self) -> None:
        """Initialises one ray of offsets per head, point k at k cells, and equal weights."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        rays = torch.stack([angles.cos(), angles.sin()], -1)
        rays = rays / rays.abs().max(-1, keepdim=True).values
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        bias = (rays[:, None, None] * steps[None, None, :, None]).repeat(1, self.num_levels, 1, 1)
        with torch.no_grad():
            self.sampling_offsets.weight.zero_()
            self.sampling_offsets.bias.copy_(bias.flatten())
            self.attention_weights.weight.zero_()
            self.attention_weights.bias.zero_()
            for projection in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(projection.weight)
                projection.bias.zero_()

    def forward(
        self,
        query: Float[Tensor, "B Q D"],
        anchors: Float[Tensor, "B Q L A"],
        memory: Float[Tensor, "B S D"],
        padding: Bool[Tensor, "B S"] | None,
        shapes: LevelShapes,
    ) -> Float[Tensor, "B Q D"]:
        """Attends to the memory around the anchors, which are relative to each padded level."""
        value = self.value_proj(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        shape = (self.heads, self.num_levels, self.points)
        attended = deformable_sampling(
            value.unflatten(-1, (self.heads, -1)),
            shapes,
            anchors,
            self.sampling_offsets(query).unflatten(-1, (*shape, 2)),
            self.attention_weights(query).unflatten(-1, shape),
        )
        return self.output_proj(attended)


@dataclass(frozen=True)
class _Part:
    """The position of a group among the joined queries, and which keys its queries see.

    `folded` is the number of blocks that move into the batch axis. Only a group that sees no other
    group is folded. A group that sees others stays one sequence, followed by the others' queries,
    and `visible` separates its blocks: folding it would repeat the others' keys for each block.
    """

    spans: tuple[slice, ...]
    folded: int
    visible: Bool[Tensor, "V 1 q k"] | None


class GroupLayout:
    """Query groups joined along the query axis. A group sees itself and the groups it names."""

    def __init__(self, groups: list[QueryGroup]) -> None:
        spans: dict[str, slice] = {}
        start = 0
        for group in groups:
            spans[group.name] = slice(start, start + len(group.queries))
            start += len(group.queries)
        self.spans = spans
        self.parts = [_part(group, spans) for group in groups]


def _part(group: QueryGroup, spans: dict[str, slice]) -> _Part:
    seen = tuple(spans[name] for name in group.sees)
    folded = 1 if seen else group.blocks
    others = sum(span.stop - span.start for span in seen)
    return _Part((spans[group.name], *seen), folded, _visible(group, folded, others))


def _visible(group: QueryGroup, folded: int, others: int) -> Bool[Tensor, "V 1 q k"] | None:
    """Which keys each query sees; None if all of them.

    A query sees the queries of its own block that are not padding, all `others`, and always itself:
    a softmax over nothing is NaN.
    """
    if group.padding is None and folded == group.blocks:
        return None
    device, length = group.queries.content.device, len(group.queries) // folded
    block = torch.arange(length, device=device) // (len(group.queries) // group.blocks)
    own = (block[:, None] == block)[None, None]
    if group.padding is not None:
        shown = ~group.padding.reshape(len(group.padding) * folded, 1, 1, length)
        own = own & shown | torch.eye(length, dtype=torch.bool, device=device)
    return F.pad(own, (0, others), value=True) if others else own


class SelfAttention(nn.Module):
    """Self-attention among the queries of each group, for all groups at once.

    The projections run over all groups together (with the parameters of
    torch.nn.MultiheadAttention). The attention itself runs group by group, so no mask over all
    queries is ever built. The blocks of a group are folded into the batch axis, or separated by a
    mask if the group sees other groups. Groups without padding or mask keep the fused kernel.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, content: Float[Tensor, "B Q D"], position: Float[Tensor, "B Q D"], layout: GroupLayout
    ) -> Float[Tensor, "B Q D"]:
        """Attends within each group; `position` is added to queries and keys, not to values."""
        dim = content.shape[-1]
        query, key = F.linear(
            content + position, self.in_proj_weight[: 2 * dim], self.in_proj_bias[: 2 * dim]
        ).chunk(2, -1)
        value = F.linear(content, self.in_proj_weight[2 * dim :], self.in_proj_bias[2 * dim :])
        attended = [self._attend(query, key, value, part) for part in layout.parts]
        return self.out_proj(attended[0] if len(attended) == 1 else torch.cat(attended, 1))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, part: _Part
    ) -> Float[Tensor, "B q D"]:
        images = query.shape[0]

        def fold(tokens: Tensor, spans: tuple[slice, ...]) -> Tensor:
            chosen = [tokens[:, span] for span in spans]
            joined = chosen[0] if len(chosen) == 1 else torch.cat(chosen, 1)
            heads = joined.unflatten(-1, (self.heads, -1))
            return heads.reshape(images * part.folded, -1, *heads.shape[2:]).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            fold(query, part.spans[:1]),
            fold(key, part.spans),
            fold(value, part.spans),
            attn_mask=part.visible,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).reshape(images, -1, query.shape[-1])
