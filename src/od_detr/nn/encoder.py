"""The memory: pyramid tokens refined by deformable self-attention."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from od_detr.nn.attention import DeformableAttention
from od_detr.nn.position import encode_cells, encode_image
from od_detr.ops import LevelShapes
from od_detr.transfers import to_device_of


@dataclass(frozen=True)
class Memory:
    """The flattened pyramid. `ratios` are the valid share (width, height) of each padded level.

    `padding` is None where nothing is known to be padded.
    """

    tokens: Float[Tensor, "B S D"]
    padding: Bool[Tensor, "B S"] | None
    shapes: LevelShapes
    ratios: Float[Tensor, "B L 2"]

    def cell_centres(self) -> Float[Tensor, "B S 2"]:
        """Centre (x, y) of every token's cell, relative to the unpadded image."""
        device, centres = self.tokens.device, []
        for level, (height, width) in enumerate(self.shapes):
            y, x = torch.meshgrid(
                torch.arange(height, dtype=torch.float32, device=device) + 0.5,
                torch.arange(width, dtype=torch.float32, device=device) + 0.5,
                indexing="ij",
            )
            extent = self.ratios[:, None, level] * to_device_of([width, height], self.ratios)
            centres.append(torch.stack([x, y], -1).flatten(0, 1) / extent)
        return torch.cat(centres, 1)


class EncoderLayer(nn.Module):
    """Deformable self-attention of every token, then a feed-forward; post-norm."""

    def __init__(
        self, dim: int, heads: int, levels: int, points: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, heads, levels, points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, memory: Memory, position: Float[Tensor, "B S D"], references: Float[Tensor, "B S L 2"]
    ) -> Float[Tensor, "B S D"]:
        """One layer: the tokens of the memory, refined. `references` are their cells' centres."""
        tokens = memory.tokens
        attended = self.self_attn(
            tokens + position, references, tokens, memory.padding, memory.shapes
        )
        tokens = self.norm1(tokens + self.dropout(attended))
        hidden = self.linear2(self.dropout(F.relu(self.linear1(tokens))))
        return self.norm2(tokens + self.dropout(hidden))


class Encoder(nn.Module):
    """Flattens the pyramid, marks each level, and refines the tokens layer by layer.

    If `recompute` is set, the backward pass computes each layer again from its input (gradient
    checkpointing): training then keeps one tensor a layer instead of about a dozen. Dropout draws
    the same numbers again, so that losses and gradients do not change.
    """

    def __init__(
        self,
        layers: list[EncoderLayer],
        dim: int,
        levels: int,
        temperature: float = 10000.0,
        half_pixel: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.level_embed = nn.Parameter(torch.randn(levels, dim))
        self.temperature, self.half_pixel = temperature, half_pixel
        self.recompute = False

    def flatten(
        self, pyramid: list[Float[Tensor, "B D _h _w"]], padding: Bool[Tensor, "B H W"]
    ) -> tuple[Memory, Float[Tensor, "B S D"]]:
        """The pyramid as one sequence with its masks, and the position of every token."""
        tokens = torch.cat([feature.flatten(2).transpose(1, 2) for feature in pyramid], 1)
        shapes = tuple((feature.shape[-2], feature.shape[-1]) for feature in pyramid)
        encoding = (tokens.shape[-1], self.temperature, self.half_pixel)
        if nothing_padded(padding):
            encoded = [encode_cells(*shape, *encoding, tokens.device) for shape in shapes]
            hidden, ratios = (
                None,
                padding.new_ones(padding.shape[0], len(shapes), 2, dtype=torch.float32),
            )
        else:
            masks = [
                F.interpolate(padding[:, None].float(), size=shape).to(torch.bool)[:, 0]
                for shape in shapes
            ]
            encoded = [encode_image(mask, *encoding).flatten(1, 2) for mask in masks]
            hidden = torch.cat([mask.flatten(1) for mask in masks], 1)
            ratios = torch.stack([_valid_share(mask) for mask in masks], 1)
        position = torch.cat(
            [each + mark for each, mark in zip(encoded, self.level_embed, strict=True)], 1
        )
        return Memory(tokens, hidden, shapes, ratios), position.expand(tokens.shape[0], -1, -1)

    def forward(
        self, pyramid: list[Float[Tensor, "B D _h _w"]], padding: Bool[Tensor, "B H W"]
    ) -> Memory:
        """Encodes a feature pyramid. `padding` is True where the batch has no image."""
        memory, position = self.flatten(pyramid, padding)
        references = memory.cell_centres()[:, :, None] * memory.ratios[:, None]
        for layer in self.layers:
            tokens = self._refined(layer, memory, position, references)
            memory = replace(memory, tokens=tokens)
        return memory

    def _refined(
        self,
        layer: nn.Module,
        memory: Memory,
        position: Float[Tensor, "B S D"],
        references: Float[Tensor, "B S L 2"],
    ) -> Float[Tensor, "B S D"]:
        """The tokens after a layer, kept for the backward pass or not as `recompute` says."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(layer, memory, position, references, use_reentrant=False)
        return layer(memory, position, references)


def nothing_padded(padding: Bool[Tensor, "B H W"]) -> bool:
    """Whether it is known that no pixel is padding.

    Not asked where the answer would have to be waited for, nor where a program is recorded for
    other batches too.
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return padding.device.type == "cpu" and not recorded and not bool(padding.any())


def _valid_share(mask: Bool[Tensor, "B h w"]) -> Float[Tensor, "B 2"]:
    return torch.stack([(~mask[:, 0]).float().mean(-1), (~mask[:, :, 0]).float().mean(-1)], -1)
