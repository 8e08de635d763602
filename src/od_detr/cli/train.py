"""`od-detr train`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from od_detr.options import TrainOptions
from od_detr.options.commands.shared import json_option
from od_detr.options.fields import option


@dataclass(frozen=True)
class TrainCommand(TrainOptions):
    """Train a detector on a folder of labelled images."""

    replay: str | None = option(
        None,
        "Repeat the step that stopped a run on values that are not finite, and name the first "
        "module where they are. Needs no other option.",
        metavar="DUMP",
        shown="train",
        in_run=True,
        may_change_on_resume=True,
    )
    json: bool = json_option()

    @property
    def run_options(self) -> TrainOptions:
        """The options without those of the command line alone."""
        return TrainOptions(
            **{each.name: getattr(self, each.name) for each in fields(TrainOptions)}
        )


def train(options: TrainCommand) -> dict[str, Any]:
    """Trains, or with --dry-run only reports the cost, or with --replay repeats a step."""
    if options.replay is not None:
        return _replay(options.run_options, Path(options.replay))
    return _dry_run(options.run_options) if options.dry_run else _train(options.run_options)


def _replay(options: TrainOptions, dump: Path) -> dict[str, Any]:
    from od_detr.training.nonfinite.replay import as_result, described, replay

    done = replay(options, dump)
    print("\n".join(described(done)))
    return as_result(done)


def _train(options: TrainOptions) -> dict[str, Any]:
    from od_detr.files import read_json
    from od_detr.ranks import is_chief
    from od_detr.reporting.evaluation import format_table
    from od_detr.reporting.terminal import text_console
    from od_detr.run_files import RunFiles
    from od_detr.training.fit import fit

    run = fit(options)
    if not is_chief():  # on a further node
        return {"run": str(run.directory)}
    for name, summary in run.summaries.items():
        text_console().print(format_table(summary, name))
    files = RunFiles(run.directory)
    result = {"run": str(run.directory)} | run.rows[-1]
    if not files.best_config.is_file():  # removed from a finished run
        print(f"{files.best}: has no {files.best_config.name}; only the last weights are left")
        return result
    best = read_json(files.best_config, "detector's configuration", "train it again")
    which = f"{best['weights']} weights of epoch {best['epoch']}"
    reached = f"AP {100 * best['AP']:.1f}" if best["AP"] >= 0 else "AP cannot be measured"
    print(f"best: {which}, {reached}, in {files.best}")
    return {"AP": best["AP"], "weights": best["weights"]} | result


def _dry_run(options: TrainOptions) -> dict[str, Any]:
    from od_detr.training.cost.dry_run import dry_run

    costs = dry_run(options)
    print("\n".join(costs.described()))
    return costs.as_result()
