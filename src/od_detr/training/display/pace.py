"""How fast a run goes, and how long it still takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta

WINDOW = 50  # batches that the rate is the mean of


class Pace:
    """Measures the rate of batches and estimates the time left.

    The first batch after a start is not measured: it waits for workers and first uses.

    Args:
        batches_left: batches that are still to be trained.
        validations_left: validations still to come.
        clock: gives seconds.
    """

    def __init__(
        self,
        batches_left: int,
        validations_left: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batches_left, self.validations_left = batches_left, validations_left
        self._clock = clock
        self._since: float | None = None
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._validation = 0.0

    def trained(self, batches: int = 1) -> None:
        """Some more batches are done."""
        now = self._clock()
        if self._since is not None:
            self._recent.append((now - self._since) / batches)
        self._since = now
        self.batches_left -= batches

    def paused(self) -> None:
        """Training stops for a while, which is not counted."""
        self._since = None

    def validated(self, seconds: float) -> None:
        """A validation took so long."""
        self._validation = seconds
        self.validations_left -= 1

    @property
    def rate(self) -> float | None:
        """Batches a second, over the last ones; None before two were trained."""
        total = sum(self._recent)
        return len(self._recent) / total if total > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the run ends, if it goes on like this; None before that is known."""
        if self.rate is None:
            return None
        return self.batches_left / self.rate + self.validations_left * self._validation


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: 1:02:03."""
    return str(timedelta(seconds=round(seconds)))
