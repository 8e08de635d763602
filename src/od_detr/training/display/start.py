"""What a training says before it starts."""

from __future__ import annotations

import torch

from od_detr.data.counts import counted
from od_detr.machine.devices import described_arithmetic
from od_detr.machine.limits import main_memory
from od_detr.machine.memory import resident
from od_detr.training.cost.estimate import Estimate
from od_detr.training.cost.memory import remedies
from od_detr.training.display.pace import duration
from od_detr.training.plan import Parts


def opening_lines(parts: Parts, estimate: Estimate | None) -> list[str]:
    """Device, network, schedule, estimated cost and where files go, a line each."""
    options, place, files = parts.options, parts.plan.place, parts.plan.files
    sizes = [each.numel() for each in parts.network.detector.parameters()]
    trained = [e.numel() for e in parts.network.detector.parameters() if e.requires_grad]
    device = parts.fabric.device
    arithmetic = described_arithmetic(options.precision, options.matmul, device.type)
    total = parts.state.steps_per_epoch * options.total_epochs
    epochs = counted(options.total_epochs, "epoch")
    accumulated = f" x {options.accumulate} accumulated" if options.accumulate > 1 else ""
    processes = f" x {place.world_size} processes" if place.world_size > 1 else ""
    start = f"from epoch {parts.epoch + 1}, " if 0 < parts.epoch < options.total_epochs else ""
    drop = f", divided by 10 after epoch {options.drop_epoch}" if options.drops else ""
    absent = ", no GPU was found" if (options.device, device.type) == ("auto", "cpu") else ""
    return [
        f"device:   {described_device(device)}{processes}, {arithmetic}{absent}",
        f"data:     {len(parts.train)} training and {counted(len(parts.val), 'validation image')}, "
        f"{counted(len(parts.train.classes), 'class')}, short side {options.short_side} px",
        f"network:  {options.model} with {options.backbone}, {sum(sizes) / 1e6:.1f} M parameters, "
        f"{sum(trained) / 1e6:.1f} M of them trained",
        f"training: {options.recipe}, {start}{epochs} x "
        f"{counted(parts.state.steps_per_epoch, 'step')} = {counted(total, 'step')} of "
        f"{counted(options.device_batch, 'image')}{accumulated}{processes}",
        f"rate:     {options.opt.lr:g}{drop}",
        f"done:     nothing is left to train after {epochs}; give more with --epochs"
        if parts.is_finished
        else f"cost:     {described_cost(estimate, device)}{shortage(parts, estimate)}",
        f"output:   {files.directory} ({files.config.name}, {files.metrics.name}, "
        f"{files.best.name}/, {files.last.name})",
    ]


def described_device(device: torch.device) -> str:
    """The device and what it is."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({counted(torch.get_num_threads(), 'thread')})"
    return str(device)


def described_cost(estimate: Estimate | None, device: torch.device) -> str:
    """Time and memory of what is left of the run, and how much memory there is."""
    if estimate is None:
        return "known after the first steps"
    present = memory_of(device)
    limit = "" if present is None else f" of {present / 1e9:.0f} GB"
    time = "unknown time" if estimate.seconds is None else f"about {duration(estimate.seconds)}"
    return (
        f"{time} (h:mm:ss) without loading images, "
        f"{memory_used(estimate, device) / 1e9:.1f} GB{limit} memory"
    )


def shortage(parts: Parts, estimate: Estimate | None) -> str:
    """What to give where a run takes more memory than the device has."""
    device = parts.fabric.device
    present = memory_of(device)
    if estimate is None or present is None or memory_used(estimate, device) <= present:
        return ""
    excess = memory_used(estimate, device) / present
    return f", which does not suffice: give {remedies(parts.options, excess)}"


def memory_used(estimate: Estimate, device: torch.device) -> int:
    """Bytes that a run takes: on a CPU, what the process has already counts too."""
    return estimate.bytes + (resident() if device.type == "cpu" else 0)


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory that the device has, if that is known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return main_memory() if device.type == "cpu" else None
