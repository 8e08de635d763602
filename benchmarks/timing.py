"""How all figures are taken: candidates take turns in one process on one thread, and the least of each counts.

Times are processor seconds of the whole process. On one thread they are what a clock on the wall shows on an idle
machine, and on a busy one they stay the same; work handed to another thread counts as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

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


@contextmanager
def one_thread() -> Iterator[None]:
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
