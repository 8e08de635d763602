"""Shows a run while it trains: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from od_detr.machine.memory import peak_resident
from od_detr.reporting.terminal import text_console
from od_detr.training.display.pace import Pace, duration
from od_detr.training.display.table import table_header, table_row

QUIET_SECONDS = 60.0  # between two lines of progress without a terminal
FIRST_SECONDS = 10.0  # until the first of them
FRAME_SECONDS = 0.25  # between two changes of the bar


class Display:
    """Shows nothing: what all processes but the first one use, and what the others build on.

    Nothing here reads from the device: the loss is one that the host has already, and memory is
    what the allocator of the device counts.

    Args:
        epochs: of the whole run.
        batches: training batches of the whole run.
        pace: rate and time left.
        device: where the network trains, for its memory.
    """

    def __init__(self, epochs: int, batches: int, pace: Pace, device: torch.device) -> None:
        self.epochs, self.batches, self.pace, self.device = epochs, batches, pace, device
        self.epoch, self.loss = 1, math.nan
        self._has_header = False

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, line: str) -> None:
        """Shows a line."""

    def progressed(self, doing: str) -> None:
        """Shows how far the run is, and what it is doing."""

    def begin(self, epoch: int) -> None:
        """An epoch, counted from 1, begins or goes on."""
        self.epoch = epoch
        self.pace.paused()

    def stepped(self, batches: int, loss: float) -> None:
        """Some batches were trained; the loss of the step before them is known, or NaN."""
        self.loss = loss
        self.pace.trained(batches)
        self.progressed(f"epoch {self.epoch}/{self.epochs}")

    @contextmanager
    def validating(self, batches: int) -> Iterator[None]:
        """Inside the block, `validated` counts the batches of a validation."""
        self._validated, self._of, began = 0, batches, time.monotonic()
        yield
        self.pace.validated(time.monotonic() - began)

    def validated(self) -> None:
        """One more batch is validated."""
        self._validated += 1
        share = 100 * self._validated // max(1, self._of)
        self.progressed(f"epoch {self.epoch}/{self.epochs}, validation {share} %")

    def row(self, row: Mapping[str, Any], best_ap: float) -> None:
        """Shows the result of a validation as a row of a table."""
        if not self._has_header:
            self.say(table_header())
            self._has_header = True
        self.say(table_row(row, best_ap))

    @property
    def status(self) -> str:
        """Loss, rate, time left and peak memory, as far as they are known."""
        rate, left = self.pace.rate, self.pace.seconds_left
        parts = [] if math.isnan(self.loss) else [f"loss {self.loss:.2f}"]
        if rate is not None and left is not None:
            parts.append(f"{rate:.1f} it/s" if rate >= 1 else f"{1 / rate:.1f} s/it")
            parts.append(f"{duration(left)} left")
        return "  ".join([*parts, f"{peak_memory(self.device) / 1e9:.1f} GB"])


class Bar(Display):
    """One bar for the whole run, at the bottom of a terminal."""

    def __init__(self, *known: Any, console: Console) -> None:
        super().__init__(*known)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:.0f} %"),
            TextColumn("{task.fields[status]}"),
        )
        # Drawn when something changed. Rich's own thread would draw ten times a second.
        self._bar = Progress(*columns, console=console, expand=True, auto_refresh=False)
        self._task = self._bar.add_task("", total=self.batches, status="")
        self._shown = -math.inf

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._show(f"epoch {self.epoch}/{self.epochs}")
        self._bar.stop()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def progressed(self, doing: str) -> None:
        """Moves the bar, a few times a second at most."""
        now = time.monotonic()
        if now - self._shown >= FRAME_SECONDS:
            self._shown = now
            self._show(doing)

    def _show(self, doing: str) -> None:
        done = self.batches - self.pace.batches_left
        self._bar.update(
            self._task, description=doing, completed=done, status=self.status, refresh=True
        )


class Lines(Display):
    """Plain lines, for a log file: progress once a minute, and the table."""

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self._next = time.monotonic() + FIRST_SECONDS

    def say(self, line: str) -> None:
        """Prints a line at once, so that who follows the log sees it."""
        print(line, flush=True)

    def progressed(self, doing: str) -> None:
        """Prints how far the run is, if a minute has passed."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + QUIET_SECONDS
            done = self.batches - self.pace.batches_left
            self.say(f"{doing}, batch {done}/{self.batches}  {self.status}")


def display_of(
    epochs: int, batches: int, pace: Pace, device: torch.device, shown: bool = True
) -> Display:
    """The display for this process: a bar in a terminal, lines elsewhere, or nothing."""
    known = (epochs, batches, pace, device)
    if not shown:
        return Display(*known)
    console = text_console()
    return Bar(*known, console=console) if console.is_terminal else Lines(*known)


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: of the GPU's allocator, else of this process. Waits for nothing."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident()
