"""Deformable sampling: multi-scale deformable attention from the raw outputs of its layers.

On the CPU the places of the points, the softmax and the attention are one pass over the inputs,
forward and backward: what surrounds the sampling would otherwise cost more than the sampling
itself. Everywhere else it is the composition that defines it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from od_detr.ops import cpu
from od_detr.ops.attention import backend_of, check_attention, deformable_attention
from od_detr.ops.reference import LevelShapes
from od_detr.transfers import to_device_of


def deformable_sampling(
    value: Float[Tensor, "B S H D"],
    shapes: LevelShapes,
    anchors: Float[Tensor, "B Q L A"],
    offsets: Float[Tensor, "B Q H L P 2"],
    logits: Float[Tensor, "B Q H L P"],
) -> Tensor:
    """Deformable attention around anchors: A = 2, points (x, y), or A = 4, boxes (cx, cy, w, h), in
    [0, 1].

    Places as in `sampling_locations`, weights the softmax of the logits over levels and points
    together; values, result "B Q H*D" and precision as in `deformable_attention`. Nothing but the
    arguments is kept for the backward.

    Raises ValueError if the arguments do not fit together.
    """
    precision = torch.float64 if value.dtype == torch.float64 else torch.float32
    anchors, offsets, logits = anchors.to(precision), offsets.to(precision), logits.to(precision)
    _check(value, shapes, anchors, offsets, logits)
    if backend_of(value) != "cpu":
        return composition(value, shapes, anchors, offsets, logits)
    sizes = [size for shape in shapes for size in shape]
    return torch.ops.od_detr.deformable_sampling(value, sizes, anchors, offsets, logits)


def composition(
    value: Tensor, shapes: LevelShapes, anchors: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """What the fused kernels must equal. Arguments as in `deformable_sampling`."""
    weights = logits.flatten(3).softmax(-1).view_as(logits)
    return deformable_attention(
        value, shapes, sampling_locations(shapes, anchors, offsets), weights
    )


def sampling_locations(
    shapes: LevelShapes, anchors: Float[Tensor, "B Q L A"], offsets: Float[Tensor, "B Q H L P 2"]
) -> Float[Tensor, "B Q H L P 2"]:
    """Sampling places in [0, 1] of each level.

    Offsets count cells around a point (A = 2, or a box along an axis it has no extent on), and
    around a box the P-th parts of its half.
    """
    sizes = to_device_of(shapes, offsets).flip(-1)[:, None]
    centres = anchors[:, :, None, :, None, :2]
    if anchors.shape[-1] == 2:
        return centres + offsets / sizes
    extent = anchors[:, :, None, :, None, 2:]
    around_box = offsets / offsets.shape[-2] * extent * 0.5
    return centres + torch.where(extent > 0, around_box, offsets / sizes)


def _check(
    value: Tensor, shapes: LevelShapes, anchors: Tensor, offsets: Tensor, logits: Tensor
) -> None:
    check_attention(value, shapes, offsets, logits)
    expected = (value.shape[0], offsets.shape[1], len(shapes))
    if anchors.shape[:-1] != expected or anchors.shape[-1] not in (2, 4):
        raise ValueError(f"anchors need shape {(*expected, '2 or 4')}, not {tuple(anchors.shape)}")


@torch.library.custom_op(
    "od_detr::deformable_sampling",
    mutates_args=(),
    schema="(Tensor value, SymInt[] shapes, Tensor anchors, Tensor offsets, Tensor logits)"
    " -> Tensor",
)
def _forward(
    value: Tensor, shapes: list[int], anchors: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    return cpu.forward(value, tuple(shapes), offsets, logits, anchors)


@torch.library.custom_op(
    "od_detr::deformable_sampling_backward",
    mutates_args=(),
    schema="(Tensor grad_output, Tensor value, SymInt[] shapes, Tensor anchors, Tensor offsets,"
    " Tensor logits, bool needs_anchors) -> Tensor[]",
)
def _backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[int],
    anchors: Tensor,
    offsets: Tensor,
    logits: Tensor,
    needs_anchors: bool,
) -> list[Tensor]:
    """The gradients of value, offsets and logits, and of the anchors if needed."""
    grads = cpu.backward(grad_output, value, tuple(shapes), offsets, logits, anchors, needs_anchors)
    return [grad for grad in grads if grad is not None]


@_forward.register_fake
def _(value: Tensor, shapes: list[int], anchors: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], offsets.shape[1], value.shape[2] * value.shape[3])


@_backward.register_fake
def _(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[int],
    anchors: Tensor,
    offsets: Tensor,
    logits: Tensor,
    needs_anchors: bool,
) -> list[Tensor]:
    like = [value, offsets, logits, anchors] if needs_anchors else [value, offsets, logits]
    return [tensor.new_empty(tensor.shape) for tensor in like]


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    value, ctx.shapes, anchors, offsets, logits = inputs
    ctx.save_for_backward(value, anchors, offsets, logits)


def _differentiate(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    value, anchors, offsets, logits = ctx.saved_tensors
    needs_anchors = ctx.needs_input_grad[2]
    grad_value, grad_offsets, grad_logits, *grad_anchors = (
        torch.ops.od_detr.deformable_sampling_backward(
            grad_output, value, ctx.shapes, anchors, offsets, logits, needs_anchors
        )
    )
    return grad_value, None, grad_anchors[0] if needs_anchors else None, grad_offsets, grad_logits


_forward.register_autograd(_differentiate, setup_context=_save)
