"""Multi-scale deformable attention: one operator, dispatched to the fastest backend at hand.

| backend | where | what |
|---|---|---|
| `cpu` | CPU, a C++ compiler on the PATH | fused kernels, compiled on first use |
| `triton` | CUDA | fused kernels |
| `torch` | anywhere | the plain PyTorch form that suits the shape |
| `reference` | anywhere, and always while exporting | `grid_sample`, what the others must equal |

The fused kernels are one custom operator to PyTorch, so `torch.compile` leaves them whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from od_detr.errors import InputError
from od_detr.ops import cpu
from od_detr.ops.eager import eager_attention
from od_detr.ops.reference import LevelShapes, reference_attention

BACKENDS = ("auto", "reference", "torch", "cpu", "triton")

_requested = os.environ.get("OD_DETR_ATTENTION", "auto")


def deformable_attention(
    value: Float[Tensor, "B S H D"],
    shapes: LevelShapes,
    locations: Float[Tensor, "B Q H L P 2"],
    weights: Float[Tensor, "B Q H L P"],
) -> Tensor:
    """Samples each level bilinearly at the locations and sums with the weights (Deformable DETR,
    Eq. 3).

    `value` holds the maps of the levels one after the other, `shapes` their (height, width). A
    location is (x, y), 0 and 1 being the borders of that level's map (pixel centres at
    half-integers, `align_corners=False`); outside of the map the value is 0. The result is "B Q
    H*D", of the dtype of `value`; the arithmetic is float32, or float64 for float64 values:
    half-precision locations would be off by whole cells.

    Raises ValueError if the arguments do not fit together.
    """
    check_attention(value, shapes, locations, weights)
    precision = torch.float64 if value.dtype == torch.float64 else torch.float32
    locations, weights = locations.to(precision), weights.to(precision)
    backend = backend_of(value)
    if backend in ("cpu", "triton"):
        sizes = [size for shape in shapes for size in shape]
        return torch.ops.od_detr.deformable_attention(value, sizes, locations, weights, backend)
    form = reference_attention if backend == "reference" else eager_attention
    return form(value.to(precision), shapes, locations, weights).to(value.dtype)


@contextmanager
def attention_backend(name: str) -> Iterator[None]:
    """Asks for a backend, in all threads: one of `BACKENDS`. Overrides the environment variable
    OD_DETR_ATTENTION.
    """
    global _requested
    before, _requested = _requested, name
    try:
        yield
    finally:
        _requested = before


def selected_backend(device: torch.device | str, dtype: torch.dtype = torch.float32) -> str:
    """The backend that values of this dtype on this device would be given, `auto` resolved.

    Raises InputError if the backend asked for is unknown or cannot run there.
    """
    return _resolve(
        _requested, torch.device(device).type, dtype, torch.are_deterministic_algorithms_enabled()
    )


def backend_of(value: Tensor) -> str:
    """The backend that attends to these values: `reference`, which is all standard operators, while
    exporting.
    """
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing():
        return "reference"
    return _resolve(
        _requested, value.device.type, value.dtype, torch.are_deterministic_algorithms_enabled()
    )


@torch.compiler.assume_constant_result
def _resolve(requested: str, device_type: str, dtype: torch.dtype, deterministic: bool) -> str:
    if requested not in BACKENDS:
        raise InputError(
            f"OD_DETR_ATTENTION: no backend {requested!r}; choose one of {', '.join(BACKENDS)}"
        )
    if requested in ("cpu", "triton") and not _available(requested, device_type, dtype):
        kind = str(dtype).removeprefix("torch.")
        fix = (
            "install a C++ compiler or use auto"
            if (requested, device_type) == ("cpu", "cpu")
            else "use auto"
        )
        raise InputError(
            f"OD_DETR_ATTENTION: backend {requested!r} cannot run on {device_type} in {kind} here; "
            f"{fix}"
        )
    if requested != "auto":
        return requested
    if device_type == "cpu" and _available("cpu", device_type, dtype):
        return "cpu"
    if device_type == "cuda" and not deterministic and _available("triton", device_type, dtype):
        return "triton"
    return "torch"


def _available(backend: str, device_type: str, dtype: torch.dtype) -> bool:
    try:
        return _kernels(backend).available(device_type, dtype)
    except ImportError:  # no Triton on this platform
        return False


def _kernels(backend: str) -> ModuleType:
    if backend == "cpu":
        return cpu
    from od_detr.ops import triton  # not on every platform, and slow to import

    return triton


def check_attention(value: Tensor, shapes: LevelShapes, locations: Tensor, weights: Tensor) -> None:
    """Raises ValueError if these do not fit together; offsets and logits have the shapes of
    locations and weights.
    """
    if value.ndim != 4 or locations.ndim != 6 or weights.ndim != 5:
        ranks = f"{value.ndim}, {locations.ndim} and {weights.ndim}"
        raise ValueError(f"value, locations and weights need 4, 6 and 5 dimensions, not {ranks}")
    if any(height < 1 or width < 1 for height, width in shapes):
        raise ValueError(f"every level needs a cell: shapes are {tuple(shapes)}")
    if sum(height * width for height, width in shapes) != value.shape[1]:
        raise ValueError(
            f"value has {value.shape[1]} tokens, the levels {tuple(shapes)} another number"
        )
    batch, _, heads, _ = value.shape
    expected = (batch, locations.shape[1], heads, len(shapes), locations.shape[4])
    if locations.shape != (*expected, 2) or weights.shape != expected:
        found = f"{tuple(locations.shape)} and {tuple(weights.shape)}"
        raise ValueError(
            f"locations and weights need shapes {(*expected, 2)} and {expected}, not {found}"
        )
    if not (value.device == locations.device == weights.device):
        raise ValueError(
            f"value, locations and weights are on {value.device}, {locations.device}, "
            f"{weights.device}"
        )


@torch.library.custom_op(
    "od_detr::deformable_attention",
    mutates_args=(),
    schema="(Tensor value, SymInt[] shapes, Tensor locations, Tensor weights, str backend)"
    " -> Tensor",
)
def _forward(
    value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor, backend: str
) -> Tensor:
    return _kernels(backend).forward(value, tuple(shapes), locations, weights)


@torch.library.custom_op(
    "od_detr::deformable_attention_backward",
    mutates_args=(),
    schema="(Tensor grad_output, Tensor value, SymInt[] shapes, Tensor locations, Tensor weights,"
    " str backend) -> (Tensor, Tensor, Tensor)",
)
def _backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[int],
    locations: Tensor,
    weights: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels(backend).backward(grad_output, value, tuple(shapes), locations, weights)[:3]


@_forward.register_fake
def _(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor, backend: str) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


@_backward.register_fake
def _(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[int],
    locations: Tensor,
    weights: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    value, ctx.shapes, locations, weights, ctx.backend = inputs
    ctx.save_for_backward(value, locations, weights)


def _differentiate(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    grads = torch.ops.od_detr.deformable_attention_backward(
        grad_output, value, ctx.shapes, locations, weights, ctx.backend
    )
    return grads[0], None, grads[1], grads[2], None


_forward.register_autograd(_differentiate, setup_context=_save)
