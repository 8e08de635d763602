"""Results of finished runs: mean and spread of each row, and curves averaged over seeds."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from od_detr.experiments.experiment import Experiment
from od_detr.experiments.tables import control_of
from od_detr.reporting.curves import LEAST, MOST

Done = Mapping[
    str, Mapping[int, dict[str, Any]]
]  # by run's name and seed, the contents of done.json
Seeds = Mapping[int, Mapping[str, Any]]  # the figures of a row's runs by seed
Curve = list[dict[str, float]]  # rows of metrics.csv
COLUMNS = {
    "AP": 100.0,
    "AP50": 100.0,
    "AP75": 100.0,
    "instability": 1.0,
    "consistency": 100.0,
    "seconds": 1.0,
}


def summarise(
    experiments: Sequence[Experiment], done: Done, curves: Mapping[str, Curve]
) -> list[dict[str, Any]]:
    """A row an experiment: the paper's figures, ours of every seed, their mean and half their
    range.

    AP and consistency are in percent, instability in queries an image, seconds those of training
    alone. `control` is the baseline trained as long with the same seeds, if there is one, and
    `reaches_control` the share of its epochs after which the mean curve has its final AP, see
    `reaching`. `over_first` compares with the first row that was run, see `paired`.
    """
    rows: list[dict[str, Any]] = []
    first: dict[int, dict[str, Any]] = {}
    for experiment in experiments:
        runs = {
            seed: _figures(experiment, facts)
            for seed, facts in sorted(done.get(experiment.name, {}).items())
        }
        first = first or runs
        values = {
            key: [run[key] for run in runs.values() if run[key] is not None] for key in COLUMNS
        }
        plain = control_of(experiment)
        control = plain.name if plain else ""
        column = "val/teacher/AP" if experiment.weights == "teacher" else "val/AP"
        same = runs and done.get(control, {}).keys() == runs.keys()
        rows.append(
            {
                "name": experiment.name,
                "label": experiment.title,
                "weights": experiment.weights,
                "command": experiment.command,
                "paper": vars(experiment.reported) if experiment.reported else None,
                "mean": {key: fmean(several) for key, several in values.items() if several},
                "spread": {
                    key: (max(several) - min(several)) / 2
                    for key, several in values.items()
                    if several
                },
                "seeds": runs,
                "control": control if same else None,
                "reaches_control": reaching(curves[experiment.name], curves[control], column)
                if same
                else None,
                "over_first": None if runs is first else paired(runs, first),
            }
        )
    return rows


def paired(runs: Seeds, others: Seeds, key: str = "AP") -> dict[str, float | None] | None:
    """How far runs are ahead of others with the same seeds, and whether chance would explain it.

    Returns:
        The mean `difference` over the seeds that both have, and `p` of a two-sided paired t-test;
        `p` is None with one seed or where all differences are equal. None without a common seed.
    """
    from scipy.stats import ttest_rel

    seeds = sorted(runs.keys() & others.keys())
    ours, theirs = ([each[seed][key] for seed in seeds] for each in (runs, others))
    if not seeds:
        return None
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    p = (
        float(ttest_rel(ours, theirs).pvalue)
        if max(differences) - min(differences) > 1e-9
        else None
    )
    return {"difference": fmean(differences), "p": p}


def _figures(experiment: Experiment, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One run as the row shows it; what was not recorded is None."""
    prefix = "teacher_" if experiment.weights == "teacher" else ""
    last = facts["last"]
    found = dict(facts[experiment.weights]) | {
        "instability": last.get(f"stability/{prefix}instability"),
        "consistency": last.get("stability/consistency"),
        "seconds": last.get("seconds"),
    }
    scaled = {
        key: None if found.get(key) is None else scale * found[key]
        for key, scale in COLUMNS.items()
    }
    return scaled | {"commit": facts["commit"], "resumed": facts["resumed"]}


def mean_curves(files: Sequence[Path]) -> Curve:
    """Averages `metrics.csv` of several runs epoch by epoch, with the range of each column.

    Only what all runs recorded is kept.
    """
    runs = []
    for file in files:
        with file.open(newline="") as stream:
            runs.append({row["epoch"]: row for row in csv.DictReader(stream)})
    rows = []
    for epoch in runs[0]:
        same = [run[epoch] for run in runs if epoch in run]
        if len(same) < len(runs):
            continue
        values = {key: [_number(row.get(key)) for row in same] for key in same[0]}
        recorded = {
            key: several for key, several in values.items() if all(map(math.isfinite, several))
        }
        rows.append({key: fmean(several) for key, several in recorded.items()})
        measured = {
            key: several for key, several in recorded.items() if "/" in key and len(runs) > 1
        }
        for end, extreme in ((LEAST, min), (MOST, max)):
            rows[-1] |= {key + end: extreme(several) for key, several in measured.items()}
    return rows


def _number(text: str | None) -> float:
    return float(text) if text else math.nan


def reaching(curve: Curve, control: Curve, column: str = "val/AP") -> float | None:
    """The share of its epochs after which a curve has the AP that its control ends with; None if it
    never has.

    Between validations AP is taken to grow evenly, from 0 at the start. Epochs, because the seconds
    of runs side by side, on a machine that does other work too, do not measure what a recipe
    costs. The curve's own, because at equal time it has fewer of them than its control.
    """
    goal, epochs = control[-1][column], curve[-1]["epoch"]
    epoch, before = 0.0, 0.0
    for row in (row for row in curve if column in row):
        if row[column] >= goal:
            way = (goal - before) / max(row[column] - before, 1e-12)
            return (epoch + way * (row["epoch"] - epoch)) / epochs
        epoch, before = row["epoch"], row[column]
    return None
