"""The fused CUDA backend: Triton kernels, forward and backward.

A program is a block of queries of one image and head; the channels of a cell lie along a row of
lanes, so that a corner is one coalesced read and, in the backward, one vectorised atomic addition.
Locations, weights and all sums are float32, values may be float32, bfloat16 or float16. The
additions into grad_value come in no fixed order: the dispatcher takes another backend under
`torch.use_deterministic_algorithms`.

Without a GPU the kernels run under `TRITON_INTERPRET=1`.
"""

from __future__ import annotations

import os
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from od_detr.transfers import moved

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def available(device_type: str, dtype: torch.dtype) -> bool:
    """Whether values of this dtype on this device can be attended to."""
    return dtype in DTYPES and (device_type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _corner(row, column, height, width, start, stride):
    """Offset of a cell's first channel within its image and head, and whether the cell is inside of
    the map.
    """
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    token = start + tl.where(inside, row.to(tl.int32) * width.to(tl.int32) + column.to(tl.int32), 0)
    return token.to(tl.int64) * stride, inside


@triton.jit
def _point(locations, sample, height, width, mask):
    """Position in cells: whole and fractional parts, (x0, y0, dx, dy). Far outside and NaN are kept
    off the maps.
    """
    raw_x = tl.load(locations + 2 * sample, mask=mask, other=-1.0) * width - 0.5
    raw_y = tl.load(locations + 2 * sample + 1, mask=mask, other=-1.0) * height - 0.5
    x = tl.where(raw_x > -2.0, tl.where(raw_x < width, raw_x, width), -2.0)
    y = tl.where(raw_y > -2.0, tl.where(raw_y < height, raw_y, height), -2.0)
    finite = 0.0 * (raw_x + raw_y)  # 0, or NaN where the location is not finite
    return tl.floor(x), tl.floor(y), x - tl.floor(x), y - tl.floor(y), finite


@triton.jit
def _forward_kernel(
    value, levels, locations, weights, output, tokens, queries,
    heads: tl.constexpr, channels: tl.constexpr, num_levels: tl.constexpr, points: tl.constexpr,
    BLOCK: tl.constexpr, LANES: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    image, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    query, lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, LANES)
    alive, lane_alive = query < queries, lane < channels
    item = (image.to(tl.int64) * queries + query) * heads + head
    maps = value + (image.to(tl.int64) * tokens * heads + head) * channels + lane[None, :]
    total = tl.zeros((BLOCK, LANES), tl.float32)
    for level in range(num_levels):
        height = tl.load(levels + 3 * level).to(tl.float32)
        width = tl.load(levels + 3 * level + 1).to(tl.float32)
        start = tl.load(levels + 3 * level + 2)
        for point in tl.range(0, points, loop_unroll_factor=UNROLL):  # pyright: ignore
            sample = (item * num_levels + level) * points + point
            x, y, dx, dy, finite = _point(locations, sample, height, width, alive)
            weight = tl.load(weights + sample, mask=alive, other=0.0) + finite
            for corner in tl.static_range(4):  # pyright: ignore[reportGeneralTypeIssues]
                row, column = y + corner // 2, x + corner % 2
                share = (dy if corner // 2 else 1 - dy) * (dx if corner % 2 else 1 - dx) * weight
                offset, inside = _corner(row, column, height, width, start, heads * channels)
                mask = (inside & alive)[:, None] & lane_alive[None, :]
                total += share[:, None] * tl.load(maps + offset[:, None], mask=mask, other=0.0).to(
                    tl.float32
                )
    place = output + item[:, None] * channels + lane[None, :]
    tl.store(place, total.to(output.dtype.element_ty), mask=alive[:, None] & lane_alive[None, :])


@triton.jit
def _backward_kernel(
    value, levels, locations, weights, grad_output, grad_value, grad_locations, grad_weights,
    tokens, queries,
    heads: tl.constexpr, channels: tl.constexpr, num_levels: tl.constexpr, points: tl.constexpr,
    BLOCK: tl.constexpr, LANES: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    image, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    query, lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, LANES)
    alive, lane_alive = query < queries, lane < channels
    item = (image.to(tl.int64) * queries + query) * heads + head
    maps = (image.to(tl.int64) * tokens * heads + head) * channels + lane[None, :]
    place = grad_output + item[:, None] * channels + lane[None, :]
    grad = tl.load(place, mask=alive[:, None] & lane_alive[None, :], other=0.0).to(tl.float32)
    for level in range(num_levels):
        height = tl.load(levels + 3 * level).to(tl.float32)
        width = tl.load(levels + 3 * level + 1).to(tl.float32)
        start = tl.load(levels + 3 * level + 2)
        for point in tl.range(0, points, loop_unroll_factor=UNROLL):  # pyright: ignore
            sample = (item * num_levels + level) * points + point
            x, y, dx, dy, finite = _point(locations, sample, height, width, alive)
            weight = tl.load(weights + sample, mask=alive, other=0.0) + finite
            grad_x, grad_y, grad_weight = dx * 0, dx * 0, dx * 0
            for corner in tl.static_range(4):  # pyright: ignore[reportGeneralTypeIssues]
                row, column = y + corner // 2, x + corner % 2
                share_y, share_x = dy if corner // 2 else 1 - dy, dx if corner % 2 else 1 - dx
                offset, inside = _corner(row, column, height, width, start, heads * channels)
                mask = (inside & alive)[:, None] & lane_alive[None, :]
                cell = tl.load(value + maps + offset[:, None], mask=mask, other=0.0).to(tl.float32)
                product = tl.sum(grad * cell, axis=1)
                grad_weight += share_y * share_x * product
                grad_x += (share_y if corner % 2 else -share_y) * product
                grad_y += (share_x if corner // 2 else -share_x) * product
                addition = (share_y * share_x * weight)[:, None] * grad
                tl.atomic_add(
                    grad_value + maps + offset[:, None], addition, mask=mask, sem="relaxed"
                )
            tl.store(grad_locations + 2 * sample, grad_x * width * weight, mask=alive)
            tl.store(grad_locations + 2 * sample + 1, grad_y * height * weight, mask=alive)
            tl.store(grad_weights + sample, grad_weight, mask=alive)


def forward(value: Tensor, shapes: tuple[int, ...], locations: Tensor, weights: Tensor) -> Tensor:
    """`shapes` as (height, width, height, width, ...); locations and weights float32."""
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    batch, _, heads, channels = value.shape
    output = value.new_empty(batch, locations.shape[1], heads * channels)
    _launch(_forward_kernel, shapes, [value, locations, weights, output])
    return output


def backward(
    grad_output: Tensor, value: Tensor, shapes: tuple[int, ...], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights."""
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    grad_value = torch.zeros_like(value, dtype=torch.float32)
    grads = [grad_value, torch.empty_like(locations), torch.empty_like(weights)]
    _launch(_backward_kernel, shapes, [value, locations, weights, grad_output.contiguous(), *grads])
    return grad_value.to(value.dtype), grads[1], grads[2]


def tile(lanes: int) -> tuple[int, int, int]:
    """Queries and warps of a program, and points whose loads are under way together.

    Four channels a thread where a row has 32 lanes.
    """
    return max(1, min(16, 512 // lanes)), 4, 1


def _launch(kernel: triton.JITFunction, shapes: tuple[int, ...], tensors: list[Tensor]) -> None:
    value, locations, *others = tensors
    batch, tokens, heads, channels = value.shape
    _, queries, _, levels, points, _ = locations.shape
    if not locations.numel() or not channels:
        for tensor in others[1:]:
            tensor.zero_()
        return
    lanes = triton.next_power_of_2(channels)
    block, warps, unroll = tile(lanes)
    grid = (triton.cdiv(queries, block), batch * heads)
    table = _levels(shapes, value.device)
    sizes = (tokens, queries, heads, channels, levels, points, block, lanes, unroll)
    with torch.cuda.device_of(
        value
    ):  # a kernel starts on the current device, whatever device its arguments are on
        kernel[grid](value, table, locations, *others, *sizes, num_warps=warps)


@lru_cache(maxsize=1024)
def _levels(shapes: tuple[int, ...], device: torch.device) -> Tensor:
    """(height, width, first token) of each level on the device, copied once for each pyramid.

    The copy queues behind what the device is doing: images of varying size give new pyramids all
    the time.
    """
    rows, start = [], 0
    for height, width in zip(shapes[::2], shapes[1::2], strict=True):
        rows.append((height, width, start))
        start += height * width
    return moved(torch.tensor(rows, dtype=torch.int32), device)
