"""Multi-scale deformable attention against the public pure-PyTorch formulation, in one process.

`encoder` is a self-attention over the levels of a 320 px image, `decoder` 300 queries on the same memory: batch 2,
256 channels, 8 heads, 4 levels, 4 points, forward and backward, one thread. Rounds alternate between the candidates
and the least time counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from od_detr.ops import attention_backend, deformable_attention, selected_backend
from od_detr.ops.reference import reference_attention

SHAPES = ((40, 40), (20, 20), (10, 10), (5, 5))
BATCH, HEADS, CHANNELS, POINTS, QUERIES = 2, 8, 32, 4, 300
Attention = Callable[..., Tensor]


def measure(rounds: int = 15) -> dict[str, dict[str, object]]:
    """The figures of `od-detr benchmark attention`: seconds and bytes of ours and of the peer, and their ratio.

    `encoder_speedup` and `decoder_speedup` are of the backend chosen here, `fallback_…` of the one without a compiler.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encoder, decoder = workload(queries=None), workload(queries=QUERIES)
        candidates = {"ours": deformable_attention, "fallback": fallback, "peer": reference_attention}
        encoder_seconds, decoder_seconds = (interleaved(candidates, each, rounds) for each in (encoder, decoder))
        saved = {name: saved_bytes(candidates[name], encoder) for name in ("ours", "peer")}
    finally:
        torch.set_num_threads(threads)
    return {
        "encoder_speedup": speedup(encoder_seconds, "ours", goal=8.0),
        "decoder_speedup": speedup(decoder_seconds, "ours", goal=4.0),
        "fallback_encoder_speedup": speedup(encoder_seconds, "fallback", goal=1.5),
        "fallback_decoder_speedup": speedup(decoder_seconds, "fallback", goal=0.95),
        "saved_bytes_fraction": {"ratio": saved["ours"] / saved["peer"], **saved, "goal": 1 / 6, "unit": "bytes"},
    }


def fallback(*inputs: object) -> Tensor:
    with attention_backend("torch"):
        return deformable_attention(*inputs)


def workload(queries: int | None) -> tuple[Tensor, tuple[tuple[int, int], ...], Tensor, Tensor]:
    """Inputs with gradients. Without a number of queries: one a cell, sampling around itself as in an encoder."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.cat([cell_centres(height, width) for height, width in SHAPES])
    value = torch.randn(BATCH, len(centres), HEADS, CHANNELS, generator=generator)
    if queries is not None:
        centres = torch.rand(queries, 2, generator=generator)
    sizes = torch.tensor([(width, height) for height, width in SHAPES])
    offsets = torch.randn(BATCH, len(centres), HEADS, len(SHAPES), POINTS, 2, generator=generator) * 2
    locations = centres[:, None, None, None] + offsets / sizes[:, None]
    weights = torch.randn(BATCH, len(centres), HEADS, len(SHAPES) * POINTS, generator=generator).softmax(-1)
    weights = weights.unflatten(-1, (len(SHAPES), POINTS)).contiguous()
    return value.requires_grad_(), SHAPES, locations.requires_grad_(), weights.requires_grad_()


def cell_centres(height: int, width: int) -> Tensor:
    """(x, y) of every cell in [0, 1], row by row."""
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return torch.cartesian_prod(rows, columns).flip(-1)


def interleaved(candidates: dict[str, Attention], inputs: tuple, rounds: int) -> dict[str, float]:
    """Least seconds of a forward and backward of each candidate, taken in turns after one uncounted round."""
    seconds = dict.fromkeys(candidates, float("inf"))
    leaves = [tensor for tensor in inputs if isinstance(tensor, Tensor)]
    direction = torch.ones(BATCH, leaves[1].shape[1], HEADS * CHANNELS)
    for turn in range(rounds + 1):
        for name, attention in candidates.items():
            start = time.perf_counter()
            torch.autograd.grad(attention(*inputs), leaves, direction)
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def saved_bytes(attention: Attention, inputs: tuple) -> int:
    """Bytes of the storages that the backward keeps alive."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = attention(*inputs)
    return sum(storages.values()) if output.requires_grad else 0


def speedup(seconds: dict[str, float], name: str, goal: float) -> dict[str, object]:
    ratio = seconds["peer"] / seconds[name]
    return {"ratio": ratio, "ours": seconds[name], "peer": seconds["peer"], "goal": goal, "unit": "seconds"}


if __name__ == "__main__":
    print(f"backend: {selected_backend('cpu')}")
    for key, figures in measure().items():
        print(key, figures)
