"""Multi-scale deformable attention against the public pure-PyTorch formulation, in one process.

Both sides start from what the layers of Deformable DETR's attention module give: values, offsets
and logits.

`encoder` is a self-attention over the levels of a 320 px image, `decoder` 300 boxes on the same
memory: batch 2, 256 channels, 8 heads, 4 levels, 4 points, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Figure, cost, interleaved, saved_bytes, speedup
from od_detr.ops import attention_backend, deformable_sampling, selected_backend
from od_detr.ops.reference import LevelShapes, reference_attention

SHAPES = ((40, 40), (20, 20), (10, 10), (5, 5))
BATCH, HEADS, CHANNELS, POINTS, QUERIES = 2, 8, 32, 4, 300
Attention = Callable[..., Tensor]


def measure(rounds: int = 15) -> dict[str, Figure]:
    """The figures of `od-detr benchmark attention`: seconds and bytes of ours and of the peer, and
    their ratio.

    `encoder_speedup` and `decoder_speedup` are of the backend chosen here, `fallback_…` of the one
    without a compiler.
    """
    candidates = {"ours": deformable_sampling, "fallback": fallback, "peer": public_form}
    encoder, decoder = workload(queries=None), workload(queries=QUERIES)
    in_encoder, in_decoder = (
        interleaved(
            {name: forward_and_backward(each, inputs) for name, each in candidates.items()}, rounds
        )
        for inputs in (encoder, decoder)
    )
    saved = {name: saved_bytes(partial(candidates[name], *encoder)) for name in ("ours", "peer")}
    return {
        "encoder_speedup": speedup(in_encoder["ours"], in_encoder["peer"], 8.0),
        "decoder_speedup": speedup(in_decoder["ours"], in_decoder["peer"], 4.0),
        "fallback_encoder_speedup": speedup(in_encoder["fallback"], in_encoder["peer"], 1.5),
        "fallback_decoder_speedup": speedup(in_decoder["fallback"], in_decoder["peer"], 0.95),
        "saved_bytes_fraction": cost(saved["ours"], saved["peer"], 1 / 6, "bytes"),
    }


def fallback(
    value: Tensor, shapes: LevelShapes, anchors: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """Our operator as it runs without a compiler."""
    with attention_backend("torch"):
        return deformable_sampling(value, shapes, anchors, offsets, logits)


def public_form(
    value: Tensor, shapes: LevelShapes, anchors: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """Softmax, places and `grid_sample`, as the module of Deformable DETR does them in PyTorch."""
    weights = F.softmax(logits.flatten(3), -1).view_as(logits)
    centres, extents = anchors[:, :, None, :, None, :2], anchors[:, :, None, :, None, 2:]
    if anchors.shape[-1] == 2:
        sizes = torch.tensor([(width, height) for height, width in shapes])
        locations = centres + offsets / sizes[:, None]
    else:
        locations = centres + offsets / POINTS * extents * 0.5
    return reference_attention(value, shapes, locations, weights)


def workload(queries: int | None) -> tuple[Tensor, LevelShapes, Tensor, Tensor, Tensor]:
    """Inputs with gradients. Without a number of queries: one a cell, sampling around itself as in
    an encoder.
    """
    generator = torch.Generator().manual_seed(0)
    anchors = torch.cat([cell_centres(height, width) for height, width in SHAPES])
    value = torch.randn(BATCH, len(anchors), HEADS, CHANNELS, generator=generator)
    if queries is not None:
        anchors = torch.rand(queries, 4, generator=generator) * torch.tensor([1, 1, 0.3, 0.3])
    samples = (BATCH, len(anchors), HEADS, len(SHAPES), POINTS)
    offsets = torch.randn(*samples, 2, generator=generator) * 2
    logits = torch.randn(samples, generator=generator)
    anchors = anchors[None, :, None].expand(BATCH, -1, len(SHAPES), -1).contiguous()
    return (
        value.requires_grad_(),
        SHAPES,
        anchors,
        offsets.requires_grad_(),
        logits.requires_grad_(),
    )


def cell_centres(height: int, width: int) -> Tensor:
    """(x, y) of every cell in [0, 1], row by row."""
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return torch.cartesian_prod(rows, columns).flip(-1)


def forward_and_backward(attention: Attention, inputs: tuple) -> Callable[[], object]:
    """Work to time: the operator and its gradients for all differentiable inputs."""
    leaves = [tensor for tensor in inputs if isinstance(tensor, Tensor) and tensor.requires_grad]
    direction = torch.ones(BATCH, inputs[3].shape[1], HEADS * CHANNELS)
    return lambda: torch.autograd.grad(attention(*inputs), leaves, direction)


if __name__ == "__main__":
    print(f"backend: {selected_backend('cpu')}")
    for key, figures in measure().items():
        print(key, figures)
