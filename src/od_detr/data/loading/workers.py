"""Loading batches in processes of their own, and how these begin and end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from od_detr.data.loading.batching import AlikeBatches, BatchSampler, collate
from od_detr.errors import InputError

# Python has both calls on Linux only.
SHIELDED = hasattr(signal, "sigwaitinfo")


class Loader(DataLoader[Any]):
    """Batches of the data set in the sampler's order, prepared by `workers` processes (0: by this
    one).

    The epoch reaches the workers with each index, so they persist from epoch to epoch. The loader
    has its own random generator: to iterate draws nothing from torch's global one.

    Args:
        dataset: gives a `Sample` for each index.
        sampler: gives the indices of each batch.
        workers: number of processes.
        collate: makes a batch of what the data set gives.

    Raises:
        InputError: while iterating, one line on a file that cannot be read, or on a worker that
            died.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: BatchSampler | AlikeBatches,
        workers: int = 0,
        collate: Callable[[Any], Any] = collate,
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(sampler.seed % 2**63),
            worker_init_fn=_obey_parent if SHIELDED else None,
        )

    def __iter__(self) -> Iterator[Any]:
        # These two: a worker was killed while this process read a batch of it.
        with self._loss_explained(ConnectionError, EOFError):
            try:
                with _signals_held():
                    batches = super().__iter__()
                yield from batches
            except InputError as error:
                # A worker's error arrives with its traceback as text; the last line is its own.
                message = str(error).strip().splitlines()[-1]
                said = message.removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
                raise InputError(said) from error

    @contextmanager
    def watched(self) -> Iterator[Loader]:
        """Ends the workers with the block, and reports inside it one that the system kills.

        torch's signal handler reports it wherever this process then is, not only while it waits for
        a batch, and once for each loader.

        Raises:
            InputError: a worker was killed.
        """
        with self._loss_explained():
            try:
                yield self
            finally:
                if isinstance(self._iterator, _MultiProcessingDataLoaderIter):
                    with suppress(InputError), self._loss_explained():  # it was to end anyway
                        self._iterator._shutdown_workers()
                    self._iterator = None

    @contextmanager
    def _loss_explained(self, *others: type[Exception]) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, *others) as error:
            waited = isinstance(error, RuntimeError)
            if not self.num_workers or (waited and not str(error).startswith("DataLoader worker")):
                raise
            raise InputError(
                f"one of the {self.num_workers} data loading workers died, usually because memory "
                "ran out (or /dev/shm in a container); use fewer with --workers, or none with "
                "--workers 0"
            ) from error


# A terminal, a scheduler and Ctrl-C send their signals to all processes of a run. Workers leave the
# decision to the process that reads their batches: it may want some more, to end a step.


@contextmanager
def _signals_held() -> Iterator[None]:
    """Blocks the stop signals. Processes started inside keep them blocked."""
    if not SHIELDED:
        yield
        return
    asking = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, asking)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_parent(_: int) -> None:
    """Lets a worker end when its parent, and nobody else, sends SIGTERM."""
    threading.Thread(target=_end_for_parent, daemon=True).start()


def _end_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
