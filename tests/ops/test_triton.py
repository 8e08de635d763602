"""The Triton kernels against the reference, under Triton's interpreter: no GPU needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import od_detr

CHECK = """
import torch
from od_detr.ops import deformable_attention, selected_backend
from od_detr.ops.reference import reference_attention

assert selected_backend("cpu") == "triton"
generator = torch.Generator().manual_seed(0)


def random(*sizes):
    return torch.rand(*sizes, generator=generator)


def compare(batch, shapes, queries, heads, channels, points, dtype=torch.float32, tolerance=1e-5):
    tokens = sum(height * width for height, width in shapes)
    value = (random(batch, tokens, heads, channels) - 0.5).to(dtype)
    locations = random(batch, queries, heads, len(shapes), points, 2) * 2 - 0.5
    locations[0, 0] = 1e30
    weights = random(batch, queries, heads, len(shapes), points)
    direction = random(batch, queries, heads * channels)
    results = []
    runs = (
        (deformable_attention, dtype, torch.float32),
        (reference_attention, torch.float64, torch.float64),
    )
    for function, kind, precision in runs:
        leaves = [value.to(kind), locations.to(precision), weights.to(precision)]
        leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        output = function(leaves[0], shapes, *leaves[1:])
        output.backward(direction.to(output.dtype))
        results.append([output.detach()] + [leaf.grad for leaf in leaves])
    for ours, theirs in zip(*results):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * scale)


compare(2, ((3, 4), (2, 2)), 5, 2, 8, 2)
compare(1, ((4, 3),), 3, 1, 5, 1)
compare(1, ((3, 3), (1, 2)), 17, 1, 32, 1)
compare(1, ((3, 4),), 3, 2, 8, 2, torch.bfloat16, 2e-2)
compare(1, ((3, 4),), 3, 2, 8, 2, torch.float16, 2e-3)

locations = torch.full((1, 2, 1, 1, 1, 2), 0.5)
locations[0, 1] = float("nan")
weights = torch.ones(1, 2, 1, 1, 1)
output = deformable_attention(torch.ones(1, 4, 1, 8), ((2, 2),), locations, weights)
assert (output[0, 0] == 1).all() and output[0, 1].isnan().all()
print("equal")
"""


@pytest.mark.slow
def test_the_triton_kernels_equal_the_reference_in_values_and_gradients():
    pytest.importorskip("triton")
    source = Path(od_detr.__file__ or next(iter(od_detr.__path__))).resolve()
    root = source.parent.parent if source.name == "__init__.py" else source.parent
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "OD_DETR_ATTENTION": "triton",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }
    result = subprocess.run(
        [sys.executable, "-c", CHECK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout.strip() == "equal", result.stderr
