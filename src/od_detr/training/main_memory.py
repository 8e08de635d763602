"""Freed main memory goes back to the system while a run on the CPU lasts.

Images of many sizes leave gaps of many sizes in the heap. GNU's allocator keeps them, so that a
process that uses 1 GB may hold 4. Once in a few steps is enough and costs less than 1 % of a step.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

GIVE_BACK_EVERY = 10  # steps


def give_back() -> None:
    """Gives the system all memory that is free; does nothing where the allocator is another."""
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """`malloc_trim` of the GNU C library, where the process has it."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
