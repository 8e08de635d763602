"""A row of the paper: what it changes, what the paper reports, and its options at any scale."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from od_detr.architectures import ARCHITECTURES, ModelName
from od_detr.dotted import with_values
from od_detr.options import RecipeName, TrainOptions
from od_detr.options.train import DEFAULT_MODEL
from od_detr.reporting.curves import Panel

# Epochs of the paper's ablations. A scale's epochs replace them; other schedules keep their ratio.
SCHEDULE = 24
DEVICES = 8  # of the paper's runs


@dataclass(frozen=True)
class Reported:
    """Average precisions that the paper reports, in percent."""

    AP: float
    AP50: float
    AP75: float

    def __str__(self) -> str:
        return f"{self.AP:.1f} / {self.AP50:.1f} / {self.AP75:.1f}"


@dataclass(frozen=True)
class Experiment:
    """One training run and what a table shows of it.

    Args:
        name: of the run and its directory. Rows with the same name are one run, in every table.
        title: the row's name in its table.
        recipe: as of `od-detr train`.
        reported: what the paper reports; None for a control that it does not have.
        model: the architecture.
        epochs: of the paper's schedule.
        switches: further options by their dotted names, ``{"md.reg": False}``.
        weights: which of the two detectors the row reports.
    """

    name: str
    title: str
    recipe: RecipeName
    reported: Reported | None = None
    model: ModelName = "deformable-detr-plus"
    epochs: int = SCHEDULE
    switches: Mapping[str, Any] = field(default_factory=dict)
    weights: Literal["online", "teacher"] = "online"

    def options(
        self, scale: TrainOptions, output: str = "", seed: int = 0, cost: float = 1.0
    ) -> TrainOptions:
        """The run at a scale.

        Args:
            scale: what all runs share, set for 24 epochs.
            output: folder of the run.
            seed: its seed.
            cost: divides the number of epochs.
        """
        epochs = max(1, round(scale.total_epochs * self.epochs / SCHEDULE / cost))
        options = replace(
            scale, model=self.model, recipe=self.recipe, epochs=epochs, output=output, seed=seed
        )
        if ARCHITECTURES[self.model].two_stage:
            options = replace(
                options, num_levels=None
            )  # these architectures are named after theirs
        if epochs != self.epochs:
            share = TrainOptions(data="", epochs=self.epochs).drop_epoch / self.epochs
            options = with_values(
                options, {"opt.drop": max(1, min(epochs - 1, round(share * epochs)))}
            )
        return with_values(options, self.switches)

    def is_control_of(self, other: Experiment) -> bool:
        """Whether this is the baseline of another row: the same architecture and schedule."""
        return self.recipe == "baseline" != other.recipe and (self.model, self.epochs) == (
            other.model,
            other.epochs,
        )

    @property
    def command(self) -> str:
        """The run as the paper has it, on its own: ``od-detr train``."""
        chosen: dict[str, Any] = {"data": "COCO", "devices": DEVICES}
        defaults = TrainOptions(data="", model=DEFAULT_MODEL, epochs=SCHEDULE)
        named = {"model": self.model, "recipe": self.recipe, "epochs": self.epochs}
        chosen |= {
            key: value
            for key, value in named.items()
            if key == "recipe" or value != getattr(defaults, key)
        }
        chosen |= self.switches
        flags = (
            f"--{key.rstrip('_').replace('_', '-')} {_typed(value)}"
            for key, value in chosen.items()
        )
        return " ".join(["od-detr train", *flags])


@dataclass(frozen=True)
class Table:
    """A table or figure, of the paper or our own; its `panels` are drawn, if there are any."""

    title: str
    rows: tuple[Callable[[], Experiment], ...]
    panels: tuple[Panel, ...] = ()

    def experiments(self) -> list[Experiment]:
        """The rows, from top to bottom."""
        return [row() for row in self.rows]


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return shlex.quote(str(list(value)))
    return str(value).lower() if isinstance(value, bool) else str(value)
