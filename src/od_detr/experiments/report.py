"""Reports what the finished runs of a table show: as Markdown, JSON, an HTML page and a chart."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from od_detr.experiments.experiment import Experiment
from od_detr.experiments.plan import Plan
from od_detr.experiments.results import COLUMNS, Curve, mean_curves, summarise
from od_detr.experiments.runs import finished
from od_detr.experiments.tables import control_of
from od_detr.files import atomic_write
from od_detr.options import TrainOptions
from od_detr.reporting.curves import curves as draw
from od_detr.reporting.page import code, folded, page, paragraph, picture, wide
from od_detr.reporting.table import TextTable
from od_detr.run_files import RunFiles, kept_name

Row = Mapping[str, Any]  # of `od_detr.experiments.results.summarise`
HEAD = (
    "row",
    "--rows",
    "paper AP / 50 / 75",
    "AP",
    "AP50",
    "AP75",
    "instability",
    "consistency %",
    "seconds",
    "seeds",
    "reaches the baseline's final AP after",
    "AP over the first row",
)
DIGITS = {"instability": 2, "seconds": 0}  # behind the decimal point; one in other columns


def report(plan: Plan) -> dict[str, Any]:
    """Reports all finished runs in the plan's folder, whatever rows and seeds they have.

    Writes `tableN.md`, `.json` and `.html`, and for a figure the chart `figN.png` too.
    """
    rows = plan.table.experiments()
    controls = [control for row in rows if (control := control_of(row)) is not None]
    done = _finished_runs(plan, [*rows, *controls])
    means = {
        name: mean_curves([RunFiles(plan.directory(name, seed)).metrics for seed in runs])
        for name, runs in done.items()
        if runs
    }
    summary, setting = summarise(rows, done, means), _setting(plan.scale, plan.shared)
    curves = {
        _with_seeds(row.title, done[row.name]): means[row.name] for row in rows if row.name in means
    }
    write(plan, setting, summary, curves if plan.table.panels else {})
    return {"table": plan.name, "scale": plan.scale, "setting": setting, "rows": summary}


def _finished_runs(plan: Plan, rows: Sequence[Experiment]) -> dict[str, dict[int, dict[str, Any]]]:
    """The contents of `done.json` by the run's name and seed."""
    done: dict[str, dict[int, dict[str, Any]]] = {row.name: {} for row in rows}
    for seed in sorted(set(_seeds_in(plan.output))):
        for row in rows:
            facts = finished(plan.run(row, seed))
            if facts is not None:
                done[row.name][seed] = facts
    return done


def _seeds_in(output: Path) -> Iterator[int]:
    for place in output.glob("*-seed*"):
        found = re.fullmatch(r".+-seed(\d+)", place.name)
        if found and RunFiles(place).done.exists():
            yield int(found[1])


def _with_seeds(title: str, seeds: Collection[int]) -> str:
    return f"{title}, {len(seeds)} seeds" if len(seeds) > 1 else title


def _setting(scale: str, shared: TrainOptions) -> str:
    """The options that all rows share, as a sentence."""
    size = f"{shared.short_side} px"
    if shared.init is not None and shared.image_size is None:
        size = "the image size it was trained at"
    if shared.init is not None:
        start = f"fine-tuned from {kept_name(shared.init)}"
    else:
        narrower = "a narrower " if shared.backbone_options else ""
        weights = "trained from scratch"
        if shared.backbone_weights != "none":
            weights = f"weights {Path(shared.backbone_weights).name}"
        start = f"{narrower}{shared.backbone_name}, {weights}"
    images = shared.device_batch * (shared.devices or 1) * shared.accumulate
    rate = (
        "the learning rate of each architecture"
        if shared.opt.lr is None
        else f"learning rate {shared.opt.lr:g}"
    )
    return (
        f"Scale {scale}: data {kept_name(shared.data)}, {start}, {size}, "
        f"{images} images a step, {rate}. {shared.total_epochs} epochs "
        "stand for 24 epochs of the paper, and other schedules scale with them. The paper's "
        "results are on COCO."
    )


def write(plan: Plan, setting: str, rows: Sequence[Row], curves: Mapping[str, Curve]) -> None:
    """Writes the files of a report. `curves` by label are drawn first, where there are any."""
    title, output = plan.table.title, plan.output
    output.mkdir(parents=True, exist_ok=True)
    chart = output / f"{plan.name}.png"
    if curves:
        draw(curves, chart, title, plan.table.panels)
    contents = {
        "md": as_markdown(title, setting, rows),
        "json": json.dumps({"title": title, "setting": setting, "rows": rows}, indent=1),
        "html": as_page(title, setting, rows, chart if curves else None),
    }
    for suffix, content in contents.items():
        with atomic_write(output / f"{plan.name}.{suffix}") as partial:
            partial.write_text(content, encoding="utf-8")


def as_markdown(title: str, setting: str, rows: Sequence[Row]) -> str:
    """The table with the paper's results next to ours, in Markdown."""
    parts = [f"# {title}", setting, _legend(rows), _table(rows).as_markdown(), _commits(rows)]
    return "\n\n".join(parts) + "\n"


def as_page(title: str, setting: str, rows: Sequence[Row], chart: Path | None = None) -> str:
    """The same as an HTML page, with the chart, the AP of every seed and the paper's commands."""
    elements = [paragraph(text) for text in (setting, _legend(rows), _commits(rows))]
    elements.append(wide(_table(rows).as_html()))
    if chart is not None:
        elements.append(picture(chart, "Curves of AP, instability, consistency and loss"))
    items = (paragraph(f"{row['label']}: {_by_seed(row)}") + code(row["command"]) for row in rows)
    elements.append(folded("AP of every seed, and the commands of the paper's runs", items))
    return page(title, elements)


def _table(rows: Sequence[Row]) -> TextTable:
    return TextTable(HEAD, tuple(map(_cells, rows)))


def _cells(row: Row) -> tuple[str, ...]:
    paper = " / ".join(f"{value:.1f}" for value in row["paper"].values()) if row["paper"] else "-"
    seeds = str(len(row["seeds"])) if row["seeds"] else "not run"
    metrics = (_metric(row, key) for key in COLUMNS)
    return (row["label"], row["name"], paper, *metrics, seeds, _reaches(row), _lead(row))


def _metric(row: Row, key: str) -> str:
    if key not in row["mean"]:
        return "-"
    digits = DIGITS.get(key, 1)
    spread = f" ± {row['spread'][key]:.{digits}f}" if len(row["seeds"]) > 1 else ""
    return f"{row['mean'][key]:.{digits}f}{spread}"


def _reaches(row: Row) -> str:
    if row["control"] is None:
        return "-"
    share = row["reaches_control"]
    return "never" if share is None else f"{100 * share:.0f} % of the epochs"


def _lead(row: Row) -> str:
    if row["over_first"] is None:
        return "-"
    p = row["over_first"]["p"]
    return f"{row['over_first']['difference']:+.1f}" + ("" if p is None else f" (p = {p:.2g})")


def _legend(rows: Sequence[Row]) -> str:
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    return (
        "Our results are those of the last epoch: the mean ± half the range over seeds "
        f"{', '.join(map(str, seeds)) or '(none yet)'}. "
        "Instability is the number of queries per image that changed their object since the last "
        "validation; lower is better. "
        "Consistency is the share of objects that are matched to the same query of the detector "
        "and of its teacher; higher is better. "
        "Seconds are training time; they depend on what else the machine did, so do not compare "
        "them. "
        "The last column but one is convergence speed: the share of its epochs a row needs to "
        "reach the final AP of its baseline, which was trained equally long with the same seeds. "
        "It is read off the mean curve, interpolated between validations. "
        "The last column is the mean lead over the first row with the same seeds; p is that of a "
        "two-sided paired t-test."
    )


def _commits(rows: Sequence[Row]) -> str:
    commits = {run["commit"] or "unknown" for row in rows for run in row["seeds"].values()}
    return f"Commits: {', '.join(sorted(commits)) or '-'}."


def _by_seed(row: Row) -> str:
    return ", ".join(f"{run['AP']:.1f}" for run in row["seeds"].values()) or "not run"
