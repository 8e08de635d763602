"""Self-attention within groups equals one attention per block, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
import torch
from benchmarks.denoising import joined, per_block, repeating

from od_detr.nn.attention import GroupLayout, SelfAttention
from od_detr.objectives import total
from od_detr.options import TrainOptions
from od_detr.structures import QueryGroup, QuerySet
from od_detr.training.recipe import make_recipe

if TYPE_CHECKING:
    from od_detr.detectors import DetectionTransformer
    from od_detr.structures import Batch


def made_groups(blocks: int, padded: bool) -> list[QueryGroup]:
    def queries(count: int) -> QuerySet:
        return QuerySet(torch.randn(2, count, 16), torch.rand(2, count, 4))

    padding = torch.rand(2, blocks * 6) < 0.4 if padded else None
    return [
        QueryGroup("main", queries(11)),
        QueryGroup("denoising", queries(blocks * 6), blocks, sees=("main",), padding=padding),
        QueryGroup("auxiliary", queries(blocks * 6), blocks, padding=padding),
    ]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_one_call_equals_one_attention_per_block(blocks: int, padded: bool) -> None:
    torch.manual_seed(blocks)
    groups = made_groups(blocks, padded)
    attention, content = SelfAttention(16, 4, dropout=0.0), joined(groups)
    position, weight = torch.randn_like(content), torch.randn_like(content)
    sides = (
        attention(content, position, GroupLayout(groups)),
        per_block(attention, content, position, groups),
    )
    torch.testing.assert_close(*sides, rtol=1e-5, atol=1e-6)
    inputs = (content, *attention.parameters())
    ours, wanted = (torch.autograd.grad((side * weight).sum(), inputs) for side in sides)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_the_benchmark_of_whole_steps_compares_equal_losses(
    make_detector: Callable[..., DetectionTransformer], make_batch: Callable[..., Batch]
) -> None:
    detector, losses = make_detector("dino-4scale").train(), []
    options = TrainOptions(data="", model="dino-4scale", recipe="baseline")
    for attends in (nullcontext, repeating):
        torch.manual_seed(0)
        with attends():
            losses.append(
                total(make_recipe(options, detector, None).losses(detector, make_batch()))
            )
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
