"""Signals that ask a run to stop: Ctrl-C, SIGTERM (a scheduler) and SIGHUP (a closed terminal)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from od_detr.errors import FullMemoryError, Interrupted
from od_detr.signals import handled, known

SIGNALS = known("SIGINT", "SIGTERM", "SIGHUP")


class StopSignal:
    """Remembers that the user asked the run to stop; the run looks at `asked` when it can stop.

    The same signal a second time stops at once, with `Interrupted`.

    Args:
        directory: the run, which the advice on how to continue names.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.number: int | None = None
        self.anything_saved = False
        self._at_once = False

    @property
    def asked(self) -> bool:
        """Whether a signal has arrived."""
        return self.number is not None

    @property
    def interruption(self) -> Interrupted:
        """The exception that ends the run; its message says what is saved."""
        said = (
            f"stopped; continue with --resume --output {self.directory}"
            if self.anything_saved
            else "stopped; nothing was saved yet"
        )
        return Interrupted(said, 128 + int(self.number or signal.SIGINT))

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Handles the signals inside the block; a SIGHUP that `nohup` ignores stays ignored.

        In any thread but the main one this does nothing.
        """
        ignored = [each for each in known("SIGHUP") if signal.getsignal(each) is signal.SIG_IGN]
        with handled((each for each in SIGNALS if each not in ignored), self._hear):
            yield self

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Stops inside the block without finishing it, as it can be repeated from what is saved.

        Raises:
            Interrupted: the user asked to stop, inside the block or before.
        """
        if self.asked and self.anything_saved:
            raise self.interruption
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Lets no full memory replace a stop: the run would continue with a smaller batch.

        Raises:
            Interrupted: the user asked to stop, and the step that did not fit was the last one.
        """
        try:
            yield
        except FullMemoryError as error:
            if self.asked:
                raise self.interruption from error
            raise

    def _hear(self, number: int, _: FrameType | None) -> None:
        again, self.number = self.number == number, number
        if again or (self._at_once and self.anything_saved):
            raise self.interruption
