"""Time spent training."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds spent inside `with stopwatch:` blocks, including those of an earlier process."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._before = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds so far, also while the watch runs."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._before + running

    def __enter__(self) -> Stopwatch:
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._before, self._since = self.seconds, None
