"""Devices are chosen and checked in one place; what is missing is refused in one line."""

from __future__ import annotations

import pytest
import torch

from od_detr.errors import InputError
from od_detr.machine import devices
from od_detr.machine.devices import (
    check_devices,
    choose_device,
    described_arithmetic,
    set_arithmetic,
)


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: int = 0) -> None:
    monkeypatch.setattr(devices, "available", lambda: {"cuda": cuda, "mps": mps})


def test_auto_takes_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in ((2, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")):
        pretend(monkeypatch, cuda, mps)
        assert choose_device() == torch.device(expected)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "cuda:7", "gpu", "meta", "cuda:one", ""])
def test_a_device_that_is_not_here_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pretend(monkeypatch, 0)
    with pytest.raises(InputError, match=f"--device {name}: ") as refused:
        choose_device(name)
    assert "\n" not in str(refused.value)


def test_devices_are_counted_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"--device cuda:2: .*cuda:1"):
        choose_device("cuda:2")


def test_training_needs_all_devices_and_a_precision_they_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, 2)
    assert check_devices("auto", 2, "fp16") == "cuda"
    with pytest.raises(InputError, match=r"--devices 3: .*2"):
        check_devices("auto", 3, "32")
    with pytest.raises(InputError, match=r"--devices 3: srun lets .* see 2 .*--gpus-per-task"):
        check_devices("auto", 3, "32", "srun")
    assert check_devices("cpu", 3, "32") == "cpu"
    with pytest.raises(InputError, match="--precision fp16: "):
        check_devices("cpu", 1, "fp16")


@pytest.mark.parametrize(("matmul", "tf32"), [("high", True), ("highest", False)])
def test_a_gpu_multiplies_in_tf32_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch, matmul: str, tf32: bool
) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not tf32)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    try:
        set_arithmetic(matmul, "cuda")
        assert torch.get_float32_matmul_precision() == matmul
        assert torch.backends.cudnn.allow_tf32 == tf32
    finally:
        torch.set_float32_matmul_precision(before)
    assert ("TF32" in described_arithmetic("32", matmul, "cuda")) == tf32


def test_the_arithmetic_of_a_cpu_is_left_alone() -> None:
    before = torch.get_float32_matmul_precision()
    set_arithmetic("high" if before == "highest" else "highest", "cpu")
    assert torch.get_float32_matmul_precision() == before
    assert described_arithmetic("32", "high", "cpu") == "float32"


def test_a_gpu_without_tf32_says_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert described_arithmetic("32", "high", "cuda") == "float32"
