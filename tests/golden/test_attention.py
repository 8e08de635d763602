"""Deformable attention against the official implementation's recorded values and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from od_detr.ops import attention_backend, cpu, deformable_attention

BACKENDS = [
    pytest.param(
        "cpu",
        marks=pytest.mark.skipif(not cpu.available("cpu", torch.float32), reason="no C++ compiler"),
    ),
    "torch",
    "reference",
]
PRECISIONS = [("f64", torch.float64, 1e-10), ("f32", torch.float32, 1e-5)]


def recorded(units: Path, case: str) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(f"{case}."): part
        for key, part in load_file(units / "ms_deform_attn.safetensors").items()
        if key.startswith(f"{case}.")
    }


def attend(
    fixture: dict[str, torch.Tensor], dtype: torch.dtype
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    shapes = tuple((int(height), int(width)) for height, width in fixture["spatial_shapes"])
    names = ("value", "sampling_locations", "attention_weights")
    leaves = [fixture[name].to(dtype).requires_grad_() for name in names]
    return deformable_attention(leaves[0], shapes, *leaves[1:]), leaves


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("precision", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("case", ["A", "B", "C", "edge"])
def test_values_are_the_official_ones(units, case, precision, dtype, tolerance, backend):
    fixture = recorded(units, case)
    with attention_backend(backend):
        output, _ = attend(fixture, dtype)
    torch.testing.assert_close(output, fixture[f"{precision}.output"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("precision", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("case", ["A", "B", "C"])
def test_gradients_are_the_official_ones(units, case, precision, dtype, tolerance, backend):
    fixture = recorded(units, case)
    with attention_backend(backend):
        output, leaves = attend(fixture, dtype)
        output.backward(fixture["grad_output"].to(dtype))
    for name, leaf in zip(
        ("value", "sampling_locations", "attention_weights"), leaves, strict=True
    ):
        expected = fixture[f"{precision}.grad_{name}"]
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(leaf.grad, expected, rtol=0, atol=tolerance * scale)
