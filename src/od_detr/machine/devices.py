"""Which device computes, and whether the devices that a user asks for are present."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from od_detr.errors import FullMemoryError, InputError
from od_detr.machine.limits import cores

if TYPE_CHECKING:
    import torch

MOST_PROCESSES = 8  # that may train on the CPU whatever the number of its cores

# How PyTorch's messages about full memory read: CUDA and MPS, cuBLAS, Linux, Windows.
FULL = ("out of memory", "alloc_failed", "can't allocate memory", "not enough memory")


def available() -> dict[str, int]:
    """Number of devices of each accelerator type, the preferred type first; the CPU is left out."""
    import torch

    return {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`: auto (the best one present), cpu, cuda, cuda:1, or mps.

    Raises:
        InputError: No device has this name, or it is not present on this machine.
    """
    import torch

    if name == "auto":
        return torch.device(next((kind for kind, count in available().items() if count), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    present = {"cpu": 1, **available()}
    if device.type not in present:
        raise InputError(f"--device {name}: unknown device; give auto, cpu, cuda, cuda:0 or mps")
    if present[device.type] == 0:
        raise InputError(f"--device {name}: this machine has no usable GPU; give --device cpu")
    if (device.index or 0) >= present[device.type]:
        last = present[device.type] - 1
        raise InputError(
            f"--device {name}: this machine's last one is {device.type}:{last}; give {device.type}"
        )
    return device


def check_devices(device: str, devices: int, precision: str, launcher: str | None = None) -> str:
    """Checks that this machine has the devices to train on; returns their type: cpu, cuda or mps.

    Args:
        device: as in `choose_device`.
        devices: how many of them train.
        precision: 32, bf16 or fp16.
        launcher: who started this process, unless we did.

    Raises:
        InputError: Too few devices, or a precision that they cannot train in.
    """
    kind = choose_device(device).type
    if kind == "cpu":
        if precision == "fp16":
            raise InputError("--precision fp16: a CPU cannot train in it; give bf16 or 32")
        _check_processes(devices)
        return kind
    count = available()[kind]
    if count < devices and launcher is not None:
        raise InputError(
            f"--devices {devices}: {launcher} lets this process see {count} of the node's devices; "
            "let each process see all of them, so without --gpus-per-task or --gpu-bind"
        )
    if count < devices:
        raise InputError(f"--devices {devices}: this machine has {count}; give {count} or fewer")
    return kind


def _check_processes(asked: int) -> None:
    """Refuses more processes than this machine's cores could ever serve."""
    most = max(MOST_PROCESSES, cores())
    if asked > most:
        raise InputError(
            f"--devices {asked}: each is a process, and this one may use {cores()} cores; give "
            f"{most} or fewer"
        )


def set_arithmetic(matmul: str, kind: str) -> None:
    """Lets a CUDA device multiply float32 matrices in TF32 ("high"), or forbids it ("highest").

    Other devices have one arithmetic only, and nothing is changed for them. The setting is the
    process's.
    """
    import torch

    if kind == "cuda":
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = matmul == "high"


def described_arithmetic(precision: str, matmul: str, kind: str) -> str:
    """What a step computes in, as a user reads it."""
    if precision != "32":
        return {"bf16": "bfloat16", "fp16": "float16"}[precision] + ", losses in float32"
    if kind == "cuda" and matmul == "high" and _has_tf32():
        return "float32, matrix products in TF32 (--matmul highest: in float32)"
    return "float32"


def _has_tf32() -> bool:
    """Whether the first GPU is of the Ampere generation or later."""
    import torch

    return torch.cuda.get_device_capability() >= (8, 0)


@contextmanager
def full_memory_explained(advice: Callable[[], str]) -> Iterator[None]:
    """Turns PyTorch's or Python's report of full memory, of a GPU or of the host, into one line.

    Args:
        advice: the line; asked for only then.

    Raises:
        FullMemoryError: the memory does not suffice for tensors.
        InputError: it does not suffice for something else, such as an image or a file.
    """
    import torch

    try:
        yield
    except MemoryError as error:
        raise InputError(advice()) from error
    except RuntimeError as error:
        said = any(words in str(error).lower() for words in FULL)
        if not said and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise FullMemoryError(advice()) from error
