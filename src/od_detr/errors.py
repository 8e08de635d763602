"""The ways a command can end before it is done, each with its exit status."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """The user's input is wrong.

    The message is one line that names the file or option, the id, the field and how to fix it. The
    command line prints it as `error: …`.

    Args:
        message: the line.
        details: lines that the command line prints to stdout before, such as a table of all
            problems.
    """

    status = 2

    def __init__(self, message: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class FullMemoryError(InputError):
    """The memory of a device did not suffice; the message names options that need less."""


class LaunchError(InputError):
    """The processes that a launcher started do not fit the options.

    All of them find it out alike, so that only the first one reports it.
    """


class NonFiniteError(FloatingPointError):
    """Training stopped because values stayed infinite or NaN; the message names the first one.

    Args:
        message: one line for the user.
        step: number of the step to look at, counted from 1; None if no step is to blame.
        images: ids of that step's images, on all ranks.
    """

    status = 3

    def __init__(self, message: str, step: int | None = None, images: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.step, self.images = step, images


class Interrupted(BaseException):
    """The user or the system stopped the command; the message says what is saved.

    A signal raises it anywhere. So it is no `Exception`, as `KeyboardInterrupt` is none: no handler
    of errors takes it for a damaged file.

    Args:
        message: one line for the user.
        status: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """

    def __init__(self, message: str, status: int = 130) -> None:
        super().__init__(message)
        self.status = status


class ProcessLostError(RuntimeError):
    """Another process of the run ended; the message names its rank, its node and the cause."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's name if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: BaseException) -> str:
    """An error's whole message on one line, or the error's name if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
