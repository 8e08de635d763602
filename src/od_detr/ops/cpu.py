"""The fused CPU backend: calls the compiled kernels of `deformable_attention.cpp`.

Forward and backward go over the inputs once and save nothing but them. Results do not depend on the
number of threads.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache

import torch
from torch import Tensor

from od_detr.ops.compiler import load_library

SOURCE = "deformable_attention.cpp"


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, built by the first call; None where there is no compiler."""
    return load_library(SOURCE)


def available(device_type: str, dtype: torch.dtype) -> bool:
    """Whether values of this dtype on this device can be attended to. Half precisions are computed in float32."""
    return device_type == "cpu" and dtype.is_floating_point and dtype.itemsize >= 2 and library() is not None


def forward(value: Tensor, shapes: tuple[int, ...], locations: Tensor, weights: Tensor) -> Tensor:
    """`shapes` as (height, width, height, width, ...).

    Locations and weights are float64 for float64 values, else float32.
    """
    precision = locations.dtype
    inputs = [tensor.to(precision).contiguous() for tensor in (value, locations, weights)]
    batch, _, heads, channels = value.shape
    output = torch.empty(batch, locations.shape[1], heads * channels, dtype=precision)
    _call("forward", shapes, [*inputs, output])
    return output.to(value.dtype)


def backward(
    grad_output: Tensor, value: Tensor, shapes: tuple[int, ...], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights."""
    precision = locations.dtype
    inputs = [tensor.to(precision).contiguous() for tensor in (value, locations, weights, grad_output)]
    grad_value = torch.zeros(value.shape, dtype=precision)
    grad_locations, grad_weights = (torch.empty(tensor.shape, dtype=precision) for tensor in (locations, weights))
    _call("backward", shapes, [*inputs, grad_value, grad_locations, grad_weights])
    return grad_value.to(value.dtype), grad_locations, grad_weights


def _call(direction: str, shapes: tuple[int, ...], tensors: list[Tensor]) -> None:
    value, locations = tensors[:2]
    precision = "float64" if value.dtype == torch.float64 else "float32"
    _, queries, _, levels, points, _ = locations.shape
    sizes = _sizes(*value.shape, queries, levels, points, torch.get_num_threads(), *shapes)
    function = getattr(library(), f"{direction}_{precision}")
    function(sizes, *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors))


@lru_cache(maxsize=256)
def _sizes(*numbers: int) -> ctypes.Array:
    return (ctypes.c_int64 * len(numbers))(*numbers)
