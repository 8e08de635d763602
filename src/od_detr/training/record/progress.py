"""The progress bar of an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """Shows how far an epoch, or its validation, has come; only the first process shows it.

    Args:
        shown: whether this process shows anything.
    """

    def __init__(self, shown: bool = True) -> None:
        self.shown = shown
        self._progress: Progress | None = None

    @contextmanager
    def over(self, title: str, total: int, done: int = 0) -> Iterator[None]:
        """Shows a bar with `done` of `total` batches at its start."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        with Progress(*columns, disable=not self.shown) as self._progress:
            self._progress.add_task(title, total=total, completed=done, loss="")
            try:
                yield
            finally:
                self._progress.refresh()
        self._progress = None

    def advance(self, batches: int = 1, loss: float = math.nan) -> None:
        """Some more batches are done; `loss` is shown if it is a number."""
        if self._progress is not None:
            shown = "" if math.isnan(loss) else f"loss {loss:.3f}"
            self._progress.update(self._progress.task_ids[0], advance=batches, loss=shown)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if self._progress is not None and self.shown:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif self.shown:
            print(line)
