"""What a command is, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from od_detr.options.fields import REQUIRED, option

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
WeightsName = Literal["best", "online", "teacher"]


@dataclass(frozen=True)
class Command:
    """A command of `od-detr`.

    Args:
        options: dataclass of its options; the docstring's first paragraph describes the command.
        run: runs it and returns what `--json` prints.
        reads_config: whether it takes `--config FILE`.
        known_as: names of the same thing in other packages, for hints.
    """

    options: type
    run: Callable[[Any], dict[str, Any]]
    reads_config: bool = False
    known_as: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The command in a line."""
        return " ".join((self.options.__doc__ or "").split("\n\n")[0].split())


def json_option() -> Any:
    """`--json`."""
    return option(False, "Print the result as one JSON object on the last line.")


def device_option() -> Any:
    """`--device`."""
    return option(
        "auto",
        "Device to compute on: auto, cpu, cuda, cuda:1, mps. auto uses a GPU if there is one.",
    )


def run_option() -> Any:
    """The run that a command reads."""
    return option(
        REQUIRED,
        "Folder of a run or of a saved detector, a checkpoint of other code, or hf:OWNER/NAME.",
        positional=True,
        known_as=("model",),
    )


def weights_option() -> Any:
    """`--weights`."""
    return option("best", "The best weights of the run, or its last online or teacher weights.")
