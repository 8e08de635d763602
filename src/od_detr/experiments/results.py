"""What finished runs show: a row's mean and spread beside the paper's figures, and curves averaged over seeds."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from od_detr.experiments.experiment import Experiment

Done = Mapping[str, Mapping[int, dict[str, Any]]]  # by run's name and seed, the contents of done.json
COLUMNS = {"AP": 100.0, "AP50": 100.0, "AP75": 100.0, "instability": 1.0, "consistency": 100.0, "seconds": 1.0}


def summarise(experiments: Sequence[Experiment], done: Done) -> list[dict[str, Any]]:
    """A row an experiment: the paper's figures, ours of every seed, their mean and half their range.

    AP and consistency are in percent, instability in queries an image, seconds those of the whole run.
    """
    rows = []
    for experiment in experiments:
        runs = {seed: _figures(experiment, facts) for seed, facts in sorted(done.get(experiment.name, {}).items())}
        values = {key: [run[key] for run in runs.values() if run[key] is not None] for key in COLUMNS}
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


def as_markdown(title: str, setting: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, the paper's figures beside ours."""
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    head = ["row", "paper AP / 50 / 75", "AP", "AP50", "AP75", "instability", "consistency %", "seconds", "seeds"]
    lines = [f"# {title}", "", setting, ""]
    lines += [
        f"Ours: mean ± half the range over seeds {', '.join(map(str, seeds)) or '(none yet)'}; after the last epoch."
    ]
    lines += ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        paper = " / ".join(f"{value:.1f}" for value in row["paper"].values()) if row["paper"] else "-"
        cells = [row["label"], paper, *(_cell(row, key) for key in COLUMNS), str(len(row["seeds"]))]
        lines.append(f"| {' | '.join(cells)} |")
    commits = sorted({run["commit"] or "unknown" for row in rows for run in row["seeds"].values()})
    return "\n".join([*lines, "", f"Commits: {', '.join(commits) or '-'}.", ""])


def _cell(row: Mapping[str, Any], key: str) -> str:
    if key not in row["mean"]:
        return "-"
    digits = {"instability": 2, "seconds": 0}.get(key, 1)
    spread = f" ± {row['spread'][key]:.{digits}f}" if len(row["seeds"]) > 1 else ""
    return f"{row['mean'][key]:.{digits}f}{spread}"


def mean_curves(files: Sequence[Path]) -> list[dict[str, float]]:
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


def write(output: Path, name: str, title: str, setting: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `name`.md and `name`.json; each appears whole or not at all."""
    output.mkdir(parents=True, exist_ok=True)
    facts = json.dumps({"title": title, "setting": setting, "rows": rows}, indent=1)
    for file, content in ((f"{name}.md", as_markdown(title, setting, rows)), (f"{name}.json", facts)):
        partial = output / f"{file}.part"
        partial.write_text(content)
        partial.replace(output / file)
