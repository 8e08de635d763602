"""What must hold on a GPU. `python -m benchmarks.gpu` runs the same laws and keeps their figures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at CUDA's start

from benchmarks.gpu.laws import CHECKS  # noqa: E402
from benchmarks.gpu.runner import Check  # noqa: E402
from benchmarks.gpu.scale import chosen  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here"),
]


@pytest.mark.parametrize("law", CHECKS, ids=lambda law: law.name)
def test_the_law_holds(law: Check) -> None:
    figures = law.run(chosen("cuda", quick=False))
    assert figures["holds"], figures
