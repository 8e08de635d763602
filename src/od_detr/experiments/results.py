"""What finished runs show: a row's mean and spread beside the paper's figures, and curves averaged over seeds."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from od_detr.experiments.experiment import Experiment

Done = Mapping[str, Mapping[int, dict[str, Any]]]  # by run's name and seed, the contents of done.json
Curve = list[dict[str, float]]  # rows of metrics.csv
COLUMNS = {"AP": 100.0, "AP50": 100.0, "AP75": 100.0, "instability": 1.0, "consistency": 100.0, "seconds": 1.0}


def summarise(experiments: Sequence[Experiment], done: Done, curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """A row an experiment: the paper's figures, ours of every seed, their mean and half their range.

    AP and consistency are in percent, instability in queries an image, seconds those of the whole run.
    `reaches_control` tells when the mean curve has the final AP of the plain host trained as long, see `reaching`;
    None where there is none of the same seeds.
    """
    rows = []
    for experiment in experiments:
        runs = {seed: _figures(experiment, facts) for seed, facts in sorted(done.get(experiment.name, {}).items())}
        values = {key: [run[key] for run in runs.values() if run[key] is not None] for key in COLUMNS}
        control = next((row.name for row in experiments if row.is_control_of(experiment)), "")
        same = runs and done.get(control, {}).keys() == runs.keys()
        rows.append(
            {
                "name": experiment.name,
                "label": experiment.label,
                "weights": experiment.weights,
                "command": experiment.command,
                "paper": vars(experiment.paper) if experiment.paper else None,
                "mean": {key: fmean(several) for key, several in values.items() if several},
                "spread": {key: (max(several) - min(several)) / 2 for key, several in values.items() if several},
                "seeds": runs,
                "control": control or None,
                "reaches_control": reaching(curves[experiment.name], curves[control]) if same else None,
            }
        )
    return rows


def _figures(experiment: Experiment, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One run as the row shows it; what was not recorded is None."""
    prefix = "teacher_" if experiment.weights == "teacher" else ""
    last = facts["last"]
    found = dict(facts[experiment.weights]) | {
        "instability": last.get(f"stability/{prefix}instability"),
        "consistency": last.get("stability/consistency"),
        "seconds": facts["seconds"],
    }
    scaled = {key: None if found.get(key) is None else scale * found[key] for key, scale in COLUMNS.items()}
    return scaled | {"commit": facts["commit"], "resumed": facts["resumed"]}


def mean_curves(files: Sequence[Path]) -> Curve:
    """Several runs' `metrics.csv` as one: epoch by epoch the mean of what all of them recorded."""
    runs = []
    for file in files:
        with file.open(newline="") as stream:
            runs.append({row["epoch"]: row for row in csv.DictReader(stream)})
    rows = []
    for epoch in runs[0]:
        same = [run[epoch] for run in runs if epoch in run]
        if len(same) < len(runs):
            continue
        means = {key: fmean(_number(row.get(key)) for row in same) for key in same[0]}
        rows.append({key: value for key, value in means.items() if math.isfinite(value)})
    return rows


def _number(text: str | None) -> float:
    return float(text) if text else math.nan


def reaching(curve: Sequence[Mapping[str, float]], control: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """When a curve first has the AP that its control ends with, as shares of the control's epochs and seconds.

    Between validations AP is taken to grow evenly, from 0 at the start; empty if it is never reached.
    """
    goal = control[-1]
    before: Mapping[str, float] = {"epoch": 0.0, "seconds": 0.0, "val/AP": 0.0}
    for row in (row for row in curve if "val/AP" in row):
        if row["val/AP"] >= goal["val/AP"]:
            way = (goal["val/AP"] - before["val/AP"]) / max(row["val/AP"] - before["val/AP"], 1e-12)
            axes = [axis for axis in ("epoch", "seconds") if goal.get(axis) and axis in row]
            return {axis: (before[axis] + way * (row[axis] - before[axis])) / goal[axis] for axis in axes}
        before = row
    return {}
