"""Handling the system's signals for the length of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def known(*names: str) -> list[signal.Signals]:
    """The signals of these names that this system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


@contextmanager
def handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], Any]
) -> Iterator[None]:
    """Calls `handler` for these signals inside the block, and what handled them before afterwards.

    Python delivers signals to the main thread only: in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, each in before.items():
            signal.signal(number, each)
