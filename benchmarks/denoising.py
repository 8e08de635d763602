"""Self-attention of DINO's denoising group against repeating the main queries for each block.

One layer, forward and backward, with the sizes of DINO with a ResNet-50 (900 queries, 256 channels,
8 heads, batch 2), and whole training steps of DINO at 320 px. Run `python -m benchmarks.denoising`
in a source checkout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.step import make_batch, training_step
from benchmarks.timing import Figure, cost, interleaved, saved_bytes, speedup
from od_detr.architectures import ModelName
from od_detr.detectors import build_detector
from od_detr.nn.attention import GroupLayout, SelfAttention
from od_detr.structures import QueryGroup, QuerySet

BATCH, QUERIES, DIM, HEADS = 2, 900, 256, 8
MODEL: ModelName = "dino-4scale"


def measure(rounds: int = 5) -> dict[str, Figure]:
    """Seconds and bytes kept for backward, ours and the peer's, at 1 and 7 objects per image."""
    figures: dict[str, Figure] = {}
    for objects in (1, 7):
        blocks = 100 // objects
        groups = workload(blocks, 2 * objects * blocks)
        attention, content = SelfAttention(DIM, HEADS, 0.0), joined(groups)
        layout = GroupLayout(groups)

        def ours(attention=attention, content=content, layout=layout) -> Tensor:
            return attention(content, content, layout)

        def peer(attention=attention, content=content, groups=groups) -> Tensor:
            return per_block(attention, content, content, groups)

        seconds = interleaved(
            {"ours": lambda: gradients(ours), "peer": lambda: gradients(peer)}, rounds
        )
        figures[f"speedup_{objects}"] = speedup(seconds["ours"], seconds["peer"], 1.0)
        figures[f"saved_bytes_{objects}"] = cost(saved_bytes(ours), saved_bytes(peer), 1.0, "bytes")
        difference = (ours() - peer()).abs().max().item()
        figures[f"difference_{objects}"] = {"ours": difference}
    return figures


def whole_steps(
    rounds: int = 3, image_size: int = 320, backbone: str = "resnet50", **sizes: Any
) -> dict[str, Figure]:
    """Seconds of a training step of DINO, ours and with the peer's attention in every layer."""
    torch.manual_seed(0)
    detector = build_detector(MODEL, 80, backbone=backbone, backbone_frozen=True, **sizes)
    figures: dict[str, Figure] = {}
    for objects in (1, 7):
        batch = make_batch(BATCH, image_size, 80, objects)
        ours = training_step(detector, batch, "baseline", MODEL)

        def peer(ours=ours) -> None:
            with repeating():
                ours()

        seconds = interleaved({"ours": ours, "peer": peer}, rounds)
        figures[f"step_speedup_{objects}"] = speedup(seconds["ours"], seconds["peer"], 1.0)
    return figures


@contextmanager
def repeating() -> Iterator[None]:
    """Inside, detectors attend as the peer does."""
    begin = GroupLayout.__init__

    def remember(layout: Any, groups: list[QueryGroup]) -> None:
        begin(layout, groups)
        layout.groups = groups

    def attend(attention: SelfAttention, content: Tensor, position: Tensor, layout: Any) -> Tensor:
        return per_block(attention, content, position, layout.groups)

    with (
        mock.patch.object(GroupLayout, "__init__", remember),
        mock.patch.object(SelfAttention, "forward", attend),
    ):
        yield


def workload(blocks: int, slots: int) -> list[QueryGroup]:
    """The main group and a denoising group without padding."""
    torch.manual_seed(0)

    def queries(count: int) -> QuerySet:
        return QuerySet(torch.randn(BATCH, count, DIM), torch.rand(BATCH, count, 4))

    return [
        QueryGroup("main", queries(QUERIES)),
        QueryGroup("denoising", queries(slots), blocks, sees=("main",)),
    ]


def joined(groups: list[QueryGroup]) -> Tensor:
    """The queries' contents as the decoder joins them, with gradients."""
    return torch.cat([group.queries.content for group in groups], 1).requires_grad_()


def gradients(forward) -> None:
    """One forward and one backward pass."""
    forward().sum().backward()


def per_block(
    attention: SelfAttention, content: Tensor, position: Tensor, groups: list[QueryGroup]
) -> Tensor:
    """The same attention, one block of one group at a time, batched by repeating what is seen."""
    query, key, value = (
        F.linear(tokens, weight, bias)
        for tokens, weight, bias in zip(
            (content + position, content + position, content),
            attention.in_proj_weight.chunk(3),
            attention.in_proj_bias.chunk(3),
            strict=True,
        )
    )
    spans = GroupLayout(groups).spans
    attended = []
    for group in groups:
        own, blocks, images = spans[group.name], group.blocks, len(content)

        def heads(tokens: Tensor, blocks=blocks, images=images) -> Tensor:
            return tokens.reshape(
                images * blocks, -1, attention.heads, content.shape[-1] // attention.heads
            ).transpose(1, 2)

        def repeated(tokens: Tensor, own=own, group=group) -> Tensor:
            parts = [tokens[:, own].unflatten(1, (group.blocks, -1))]
            parts += [
                tokens[:, None, spans[n]].expand(-1, group.blocks, -1, -1) for n in group.sees
            ]
            return torch.cat(parts, 2)

        mask = None
        if group.padding is not None:
            shown = ~group.padding.reshape(images * blocks, 1, 1, -1)
            shown = shown | torch.eye(shown.shape[-1], dtype=torch.bool)
            mask = F.pad(
                shown, (0, sum(spans[n].stop - spans[n].start for n in group.sees)), value=True
            )
        result = F.scaled_dot_product_attention(
            heads(query[:, own]), heads(repeated(key)), heads(repeated(value)), attn_mask=mask
        )
        attended.append(result.transpose(1, 2).reshape(images, -1, content.shape[-1]))
    return attention.out_proj(torch.cat(attended, 1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, figure in (measure() | whole_steps()).items():
        print(name, figure)
