"""Laws that must hold on a GPU; `python -m benchmarks.gpu` runs and records the same ones."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at CUDA's start

from benchmarks.gpu.laws import CHECKS
from benchmarks.gpu.runner import Check
from benchmarks.gpu.scale import chosen

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("law", CHECKS, ids=lambda law: law.name)
def test_the_law_holds(law: Check) -> None:
    figures = law.run(chosen("cuda", quick=False))
    assert figures["holds"], figures
