"""Main memory: how much this process has, and giving back what it freed.

Images of many sizes leave gaps of many sizes in the heap. GNU's allocator keeps them, so that a
process that uses 1 GB may hold 4. Once in a few steps is enough and costs less than 1 % of a step.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

GIVE_BACK_EVERY = 10  # steps


def give_back() -> None:
    """Gives the system all memory that is free; does nothing where the allocator is another."""
    if (trim := _trim()) is not None:
        trim(0)


def resident() -> int:
    """Bytes of main memory that this process has now; elsewhere than on Linux, `peak_resident`."""
    if sys.platform != "linux":
        return peak_resident()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident() -> int:
    """The most bytes of main memory that this process has had."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


@cache
def _trim() -> Callable[[int], int] | None:
    """`malloc_trim` of the GNU C library, where the process has it."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
