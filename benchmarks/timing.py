"""How all figures are taken: candidates take turns in one process on one thread, and the least of
each counts.

Times are processor seconds of the whole process. On one thread they are what a clock on the wall
shows on an idle machine, and on a busy one they stay the same; work handed to another thread counts
as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

Figure = dict[str, float | str]


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least seconds of each candidate, taken in turns after one uncounted round."""
    seconds = dict.fromkeys(candidates, float("inf"))
    with one_thread():
        for turn in range(rounds + 1):
            for name, candidate in candidates.items():
                start = time.process_time()
                candidate()
                if turn:
                    seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds


def device_seconds(
    candidates: Mapping[str, Callable[[], object]], rounds: int, device: str, repeats: int = 1
) -> dict[str, float]:
    """Median seconds of each candidate on a device, taken in turns after an uncounted round.

    On a GPU they are what lies between two events around `repeats` calls, divided by their number:
    gaps in which the device waits for the host count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, candidate in candidates.items():
            taken = (
                _between_events(candidate, repeats) if device == "cuda" else _on_clock(candidate)
            )
            if turn:
                seconds[name].append(taken)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def _between_events(candidate: Callable[[], object], repeats: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(repeats):
        candidate()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000 / repeats


def _on_clock(candidate: Callable[[], object]) -> float:
    start = time.perf_counter()
    candidate()
    return time.perf_counter() - start


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes on one thread inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cost(ours: float, peer: float, goal: float, unit: str = "seconds") -> Figure:
    """Ours as a multiple of the peer's: at most `goal` is wanted."""
    return {"ratio": ours / peer, "ours": ours, "peer": peer, "goal": goal, "unit": unit}


def speedup(ours: float, peer: float, goal: float, unit: str = "seconds") -> Figure:
    """The peer's as a multiple of ours: at least `goal` is wanted."""
    return {"ratio": peer / ours, "ours": ours, "peer": peer, "goal": goal, "unit": unit}


@contextmanager
def counted(
    owner: type, name: str, seconds: dict[str, float], clock: Callable[[], float]
) -> Iterator[None]:
    """Adds up the seconds that a method takes, under `Class.method`."""
    method, key = getattr(owner, name), f"{owner.__name__}.{name}"
    seconds[key] = 0.0

    def timed(*arguments: Any, **more: Any) -> Any:
        began = clock()
        try:
            return method(*arguments, **more)
        finally:
            seconds[key] += clock() - began

    with mock.patch.object(owner, name, timed):
        yield


def saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Bytes of the distinct storages that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    return sum(kept.values()) if output.requires_grad else 0
