"""`od-detr env`: what a bug report needs."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from od_detr.machine.limits import cores, main_memory
from od_detr.options.commands.shared import json_option

PACKAGES = (
    "od-detr",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "supervision",
    "faster-coco-eval",
    "numpy",
    "pillow",
    "transformers",
)


@dataclass(frozen=True)
class EnvOptions:
    """Show versions, devices and the operator backend: what a bug report needs."""

    json: bool = json_option()


def env(_: EnvOptions) -> dict[str, Any]:
    """Collects the facts and prints them, a line each."""
    facts = environment()
    for name, value in _lines(facts):
        print(f"{name + ':':<26}{value}")
    return facts


def environment() -> dict[str, Any]:
    """Versions, machine, devices with their precisions, and the backend of attention on each."""
    import torch

    versions = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    return {
        "versions": versions | {"torch": torch.__version__},  # names its build for CUDA
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": cores(),
            "memory_bytes": main_memory(),
            "python_executable": sys.executable,
        },
        "devices": _devices(),
        "attention": _attention(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    """The CPU and each GPU, with the precisions they compute in themselves."""
    import torch

    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    capability = torch.backends.cpu.get_cpu_capability()
    found: dict[str, Any] = {
        "cpu": {
            "name": capability,
            "bf16": native,
            "fp16": False,
            "threads": torch.get_num_threads(),
        }
    }
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = _gpu(index)
    if torch.backends.mps.is_available():
        found["mps"] = {"name": "Apple GPU", "bf16": True, "fp16": True}
    return found


def _gpu(index: int) -> dict[str, Any]:
    import torch

    facts = torch.cuda.get_device_properties(index)
    with torch.cuda.device(index):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {
        "name": facts.name,
        "capability": f"{facts.major}.{facts.minor}",
        "memory_bytes": facts.total_memory,
        "bf16": bf16,
        "fp16": True,
        "cuda": torch.version.cuda,
    }


def _attention() -> dict[str, Any]:
    """The operator backend that each kind of device would use, and the compiler that was found."""
    import torch

    from od_detr.ops import selected_backend
    from od_detr.ops.compiler import COMPILERS

    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    return {"compiler": compiler} | {kind: selected_backend(kind) for kind in kinds}


def _lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in facts["versions"].items():
        yield name, value or "not installed"
    machine = facts["machine"]
    yield "system", machine["system"]
    yield "processor", f"{machine['processor']}, {machine['cores']} cores"
    yield "memory", _gib(machine["memory_bytes"])
    for name, device in facts["devices"].items():
        kinds = ", ".join(["32", *(kind for kind in ("bf16", "fp16") if device[kind])])
        memory = f", {_gib(device['memory_bytes'])}" if "memory_bytes" in device else ""
        yield f"device {name}", f"{device['name']}{memory}, computes in {kinds}"
    attention = facts["attention"]
    yield "C++ compiler", attention["compiler"] or "not found"
    for kind in ("cpu", "cuda"):
        yield f"attention on {kind}", attention.get(kind, "no such device")


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"
