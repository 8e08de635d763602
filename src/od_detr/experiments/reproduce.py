"""Trains the missing runs of a table and keeps its report up to date."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from od_detr.experiments.experiment import Experiment
from od_detr.experiments.plan import Plan
from od_detr.experiments.report import report
from od_detr.experiments.runs import finished, trained
from od_detr.experiments.scales import prepare
from od_detr.options import TrainOptions
from od_detr.ranks import is_chief
from od_detr.run_files import RunFiles


def train_table(
    plan: Plan, rows: Iterable[Experiment], seeds: Iterable[int], jobs: int = 1
) -> dict[str, Any]:
    """Trains what is missing of these rows and seeds, `jobs` runs at a time.

    The report of all finished runs in the plan's folder is written first and again after each run.
    Of several processes that train together only the first writes and prints.

    Returns:
        The report as a dictionary; empty in all processes but the first.

    Raises:
        InputError: the data is missing, or the folder holds runs of other options.
        KeyboardInterrupt: stopped, with everything saved; the same call goes on.
    """
    runs = plan.runs(rows, seeds)
    todo = [run for run in runs if finished(run) is None]
    if todo:
        prepare(plan.shared)
    if not is_chief():
        for _ in trained(todo, jobs):
            pass
        return {}
    result, before = report(plan), len(runs) - len(todo)
    print(f"{plan.table.title}: {before} of {len(runs)} runs are done", flush=True)
    if todo and jobs > 1:
        print(f"each run prints to a log: {RunFiles(Path(todo[0].output)).log}, ...", flush=True)
    try:
        for count, run in enumerate(trained(todo, jobs), before + 1):
            print(f"{_summary(run)}; {count} of {len(runs)} runs are done", flush=True)
            result = report(plan)
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue")
        raise
    print((plan.output / f"{plan.name}.md").read_text())
    return result


def _summary(run: TrainOptions) -> str:
    facts = finished(run)
    assert facts is not None
    return f"{Path(run.output).name}: AP {100 * facts['online']['AP']:.1f}"
