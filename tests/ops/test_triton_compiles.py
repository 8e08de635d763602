"""The Triton kernels become machine code for three generations of GPUs.

No GPU is needed to compile.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import od_detr

triton = pytest.importorskip("triton")

POINTERS = {"fp32": "*fp32", "bf16": "*bf16", "fp16": "*fp16"}
GENERATIONS = (75, 80, 90)
CONSTANTS = {
    "heads": 8,
    "channels": 32,
    "num_levels": 4,
    "points": 4,
    "BLOCK": 16,
    "LANES": 32,
    "UNROLL": 1,
}


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The module without the type checks that the test run adds, which Triton cannot read."""
    file = Path(od_detr.__file__).parent / "ops" / "triton.py"
    spec = importlib.util.spec_from_file_location("plain_kernels", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier run compiled does not count."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel, values: str, generation: int):
    """The kernel for values of a precision; tensors start at multiples of 16 bytes."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    given = POINTERS[values]
    shared = [given, "*i32", "*fp32", "*fp32", given]  # value, levels, locations, weights, output
    pointers = shared + ["*fp32"] * 3 if "grad_output" in kernel.arg_names else shared
    types = [*pointers, "i32", "i32", *["constexpr"] * len(CONSTANTS)]
    signature = dict(zip(kernel.arg_names, types, strict=True))
    constants = {(kernel.arg_names.index(name),): value for name, value in CONSTANTS.items()}
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(len(pointers))}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(
        source, target=GPUTarget("cuda", generation, 32), options={"num_warps": 4}
    )


@pytest.mark.slow
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("values", POINTERS)
def test_both_kernels_become_machine_code(
    kernels: ModuleType, values: str, generation: int
) -> None:
    for kernel in (kernels._forward_kernel, kernels._backward_kernel):
        assert compiled(kernel, values, generation).asm["cubin"]


@pytest.mark.slow
def test_rows_of_channels_are_read_and_added_in_vectors(kernels: ModuleType) -> None:
    """On Hopper one access moves four channels, also for float32 gradients of bfloat16 values."""
    forward = compiled(kernels._forward_kernel, "fp32", 90).asm["ptx"]
    assert re.search(r"ld\.global\.v4\.b32", forward)
    backward = compiled(kernels._backward_kernel, "bf16", 90).asm["ptx"]
    added = set(re.findall(r"(?:atom|red)\.global[\w.]*\.add[\w.]*", backward))
    assert added
    assert all("v4.f32" in each for each in added)
