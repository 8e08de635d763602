"""What a command is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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
