"""Which runs a table of the paper needs, at a scale, and the options of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from od_detr.dotted import with_values
from od_detr.errors import InputError
from od_detr.experiments.experiment import Experiment, Table
from od_detr.experiments.scales import SCALES, on_devices
from od_detr.options import TrainOptions


@dataclass(frozen=True)
class Plan:
    """A table of the paper at a scale. All of its runs are folders of one output folder.

    Args:
        name: the table's name, ``"table2"``.
        table: the table.
        scale: the scale's name.
        shared: options that all runs share, set for 24 epochs of the paper.
        output: folder of the runs and of the report.
        costs: by how much fewer epochs each row is trained, by its name; 1 for others.
    """

    name: str
    table: Table
    scale: str
    shared: TrainOptions
    output: Path
    costs: Mapping[str, float] = field(default_factory=dict)

    def directory(self, row: str, seed: int) -> Path:
        """The folder of one run."""
        return self.output / f"{row}-seed{seed}"

    def run(self, row: Experiment, seed: int) -> TrainOptions:
        """The options of one run."""
        directory, cost = self.directory(row.name, seed), self.costs.get(row.name, 1.0)
        return row.options(self.shared, str(directory), seed, cost)

    def runs(self, rows: Iterable[Experiment], seeds: Iterable[int]) -> list[TrainOptions]:
        """All runs of these rows: every row of a seed before the next seed."""
        rows = list(rows)
        return [self.run(row, seed) for seed in seeds for row in rows]


def shared_options(
    scale: str,
    data: Path | None,
    output: Path,
    changes: Mapping[str, Any],
    devices: int | None = None,
) -> TrainOptions:
    """The options that all runs of a scale share.

    Args:
        scale: name of the scale.
        data: data set; None for the built-in scenes of scale tiny.
        output: folder of the runs.
        changes: values by dotted name that replace those of the scale.
        devices: devices of each run; the total batch stays that of the scale.

    Raises:
        InputError: the scale needs data or `init`, or its batch cannot be shared by so many
            devices.
    """
    tuned = scale == "fine-tuning"
    if tuned and "init" not in changes:
        raise InputError(f"--scale {scale}: needs --init, a trained detector to start from")
    if "init" in changes and not tuned:
        raise InputError("--init: only for --scale fine-tuning; the others train new detectors")
    shared = with_values(SCALES[scale](data, output), changes)
    if "backbone" in changes:  # the scale's backbone_options belong to its own backbone
        shared = replace(shared, backbone_options={})
    return shared if devices is None else on_devices(shared, devices)


def check_jobs(jobs: int, shared: TrainOptions) -> None:
    """Refuses several runs at a time where each run already uses several devices."""
    if jobs > 1 and (shared.devices or 1) > 1:
        raise InputError(
            f"--jobs {jobs}: each run uses {shared.devices} devices, so only one can run at a "
            "time; give --devices 1 or --jobs 1"
        )
