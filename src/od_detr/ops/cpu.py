"""The fused CPU backend: calls the compiled kernels of `deformable_attention.cpp`.

Forward and backward go over the inputs once and save nothing but them. Results do not depend on the
number of threads.

Without anchors the offsets are the sampling locations themselves and the logits the weights:
`od_detr.ops.deformable_attention`. With anchors the kernels place the points and take the softmax
on the way: `od_detr.ops.deformable_sampling`.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache

import torch
from torch import Tensor

from od_detr.ops.compiler import load_library

SOURCES = ("vectors.cpp", "sampling.cpp", "deformable_attention.cpp")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, built by the first call; None where there is no compiler."""
    return load_library(*SOURCES)


def available(device_type: str, dtype: torch.dtype) -> bool:
    """Whether values of this dtype on this device can be attended to. Half precisions are computed
    in float32.
    """
    return (
        device_type == "cpu"
        and dtype.is_floating_point
        and dtype.itemsize >= 2
        and library() is not None
    )


def forward(
    value: Tensor,
    shapes: tuple[int, ...],
    offsets: Tensor,
    logits: Tensor,
    anchors: Tensor | None = None,
) -> Tensor:
    """`shapes` as (height, width, height, width, ...).

    All but the value are float64 for float64 values, else float32.
    """
    batch, _, heads, channels = value.shape
    output = torch.empty(batch, offsets.shape[1], heads * channels, dtype=offsets.dtype)
    _call("forward", shapes, (value, anchors, offsets, logits), (output,))
    return output.to(value.dtype)


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: tuple[int, ...],
    offsets: Tensor,
    logits: Tensor,
    anchors: Tensor | None = None,
    needs_anchors: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The gradients of value, offsets and logits, and that of the anchors if needed."""
    precision = offsets.dtype
    grad_value, grad_offsets, grad_logits = (
        torch.empty(tensor.shape, dtype=precision) for tensor in (value, offsets, logits)
    )
    by_head = None
    if anchors is not None and needs_anchors:
        by_head = torch.empty(*offsets.shape[:4], anchors.shape[-1], dtype=precision)
    outputs = (grad_value, by_head, grad_offsets, grad_logits)
    _call("backward", shapes, (value, anchors, offsets, logits, grad_output), outputs)
    return (
        grad_value.to(value.dtype),
        grad_offsets,
        grad_logits,
        None if by_head is None else by_head.sum(2),
    )


def _call(
    direction: str,
    shapes: tuple[int, ...],
    inputs: tuple[Tensor, Tensor | None, Tensor, *tuple[Tensor, ...]],
    outputs: tuple[Tensor | None, ...],
) -> None:
    """Runs a kernel; both tuples in the order of its arguments. The offsets' dtype is that of the
    arithmetic.
    """
    value, anchors, offsets, *_ = inputs
    _, queries, _, levels, points, _ = offsets.shape
    coordinates = 0 if anchors is None else anchors.shape[-1]
    sizes = _sizes(
        *value.shape, queries, levels, points, coordinates, torch.get_num_threads(), *shapes
    )
    dense = [None if tensor is None else tensor.to(offsets.dtype).contiguous() for tensor in inputs]
    pointers = [
        ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
        for tensor in [*dense, *outputs]
    ]
    precision = "float64" if offsets.dtype == torch.float64 else "float32"
    getattr(library(), f"{direction}_{precision}")(sizes, *pointers)


@lru_cache(maxsize=256)
def _sizes(*numbers: int) -> ctypes.Array:
    return (ctypes.c_int64 * len(numbers))(*numbers)
