"""Data loading workers that the system killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from od_detr.data.workers import lost_worker


@contextmanager
def worker_loss_explained(workers: int) -> Iterator[None]:
    """Turns torch's report of a killed worker into one line.

    Its signal handler reports wherever the process happens to be, also outside the loading.

    Raises:
        InputError: one of the workers was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise lost_worker(workers) from error
