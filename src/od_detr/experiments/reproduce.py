"""`od-detr reproduce`: rows of the paper's tables, run at a scale that can be afforded, beside the paper's figures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from od_detr.dotted import with_values
from od_detr.errors import InputError
from od_detr.experiments.experiment import Experiment, Table
from od_detr.experiments.tables import chosen_rows, control_of, listing, named_table
from od_detr.options import TrainOptions, check_limits
from od_detr.options.fields import REQUIRED, option
from od_detr.ranks import is_chief
from od_detr.run_files import RunFiles


@dataclass(frozen=True)
class ReproduceOptions:
    """Train the rows of a table or figure of the paper and compare the results with the paper's."""

    table: str = option(REQUIRED, "table1 to table7, fig1, fig5 or fig6.", positional=True)
    scale: Literal["tiny", "small", "paper"] = option(
        "tiny",
        "Size of the runs. tiny: built-in scenes on a CPU. small: real images on a CPU or a small "
        "GPU. paper: COCO on 8 GPUs.",
    )
    rows: str | None = option(
        None, "Names of rows, separated by commas; see --list.", shown="all rows"
    )
    seeds: int = option(1, "Number of runs of each row, each with its own seed.", at_least=1)
    first_seed: int = option(
        0, "First seed, to run each seed as a job of its own.", at_least=0, at_most=2**32 - 1
    )
    data: str | None = option(
        None,
        "Folder with images and COCO annotations.",
        metavar="DIR",
        shown="the built-in scenes of scale tiny",
    )
    output: str = option(
        "runs/reproduce",
        "Folder with a folder for each run. Finished runs in it are not repeated.",
        metavar="DIR",
    )
    epochs: int | None = option(
        None,
        "Epochs that stand for 24 epochs of the paper; other schedules scale with them.",
        at_least=1,
        shown="set by the scale",
    )
    image_size: int | None = option(
        None, "Short side of the images in pixels.", at_least=16, shown="set by the scale"
    )
    lr: float | None = option(
        None, "Learning rate of all rows.", at_least=0, shown="set by the scale"
    )
    backbone: str | None = option(
        None, "Backbone: a timm model that supports features_only.", shown="set by the scale"
    )
    backbone_weights: str | None = option(
        None,
        "Weights of the backbone: imagenet, none, or a safetensors file.",
        shown="set by the scale",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] | None = option(
        None, "Device to train on.", shown="set by the scale"
    )
    devices: int | None = option(
        None,
        "Devices for each run. The total batch stays that of the scale.",
        at_least=1,
        shown="set by the scale",
    )
    jobs: int = option(1, "Runs at the same time, in processes of one thread each.", at_least=1)
    list: bool = option(False, "Print the rows and their commands, and run nothing.")
    json: bool = option(False, "Print the result as one JSON object on the last line.")


def reproduce(options: ReproduceOptions) -> dict[str, Any]:
    """Trains what is missing of a table, seed after seed; writes `tableN.md`, `.json` and `.html`, figures as PNG too.

    Raises:
        InputError: an unknown table or row, missing data, or an `output` that holds other runs.
        KeyboardInterrupt: stopped, everything saved; the same call goes on.
    """
    table = named_table(options.table)
    experiments = chosen_rows(table, options.rows)
    if options.list:
        print(listing(table.title, experiments))
        data = "" if options.scale == "tiny" else " --data DIR"
        print(
            f"\nThe commands are the paper's own runs, on 8 GPUs. At scale {options.scale} a row is"
        )
        print(f"od-detr reproduce {options.table} --scale {options.scale}{data} --rows NAME")
        return {"rows": [experiment.command for experiment in experiments]}
    _check(options)
    from od_detr.experiments.runs import finished, trained
    from od_detr.experiments.scales import prepare

    scale = shared_options(options)
    runs = plan(
        experiments, scale, options, range(options.first_seed, options.first_seed + options.seeds)
    )
    todo = [run for run in runs.values() if finished(run) is None]
    if todo:
        prepare(scale)
    result = report(table, scale, options) if is_chief() else {}
    before = len(runs) - len(todo)
    if is_chief():
        print(f"{table.title}: {before} of {len(runs)} runs are done", flush=True)
        if todo and options.jobs > 1:
            print(
                f"what they print goes to {RunFiles(Path(todo[0].output)).log} and the like",
                flush=True,
            )
    try:
        for done, run in enumerate(trained(todo, options.jobs), before + 1):
            if is_chief():
                print(f"{_told(run)}; {done} of {len(runs)} runs are done", flush=True)
                result = report(table, scale, options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was")
        raise
    if is_chief():
        print((Path(options.output) / f"{options.table}.md").read_text())
    return result


def _check(options: ReproduceOptions) -> None:
    check_limits(options)
    if Path(options.output).is_file():
        raise InputError(f"--output {options.output}: is a file; give a folder")


def _told(run: TrainOptions) -> str:
    """A finished run in a few words."""
    from od_detr.experiments.runs import finished

    facts = finished(run)
    assert facts is not None
    return f"{Path(run.output).name}: AP {100 * facts['online']['AP']:.1f}"


def _with_seeds(label: str, seeds: Collection[int]) -> str:
    return f"{label}, {len(seeds)} seeds" if len(seeds) > 1 else label


def shared_options(options: ReproduceOptions) -> TrainOptions:
    """What all runs share: the scale's options with what the user chose otherwise."""
    from od_detr.experiments.scales import SCALES, on_devices

    data = None if options.data is None else Path(options.data)
    scale = SCALES[options.scale](data, Path(options.output))
    names = ("epochs", "image_size", "backbone", "backbone_weights", "device")
    chosen = {name: getattr(options, name) for name in names} | {"opt.lr": options.lr}
    scale = with_values(scale, {name: value for name, value in chosen.items() if value is not None})
    if options.backbone is not None:
        scale = replace(scale, backbone_options={})  # those of the scale belong to its own backbone
    if options.devices is not None:
        scale = on_devices(scale, options.devices)
    if options.jobs > 1 and (scale.devices or 1) > 1:
        raise InputError(
            f"--jobs {options.jobs}: a run on {scale.devices} devices goes alone; give --devices 1"
        )
    return scale


def _setting(name: str, scale: TrainOptions) -> str:
    weights = (
        "from scratch"
        if scale.backbone_weights == "none"
        else f"weights {Path(scale.backbone_weights).name}"
    )
    backbone = f"a narrower {scale.backbone}" if scale.backbone_options else scale.backbone
    images = scale.batch_size * (scale.devices or 1) * scale.accumulate
    rate = (
        "each host's own learning rate"
        if scale.opt.lr is None
        else f"learning rate {scale.opt.lr:g}"
    )
    return (
        f"Scale {name}: data {Path(scale.data).name}, {backbone}, {weights}, {scale.image_size} px, {images} images a "
        f"step, {rate}, {scale.epochs} epochs for the paper's 24, other schedules in proportion. "
        "The paper's figures: COCO."
    )


def plan(
    experiments: Iterable[Experiment],
    scale: TrainOptions,
    options: ReproduceOptions,
    seeds: Iterable[int],
) -> dict[tuple[str, int], TrainOptions]:
    """Every run by name and seed, each once: all rows of a seed before the next seed."""
    rows, output = list(experiments), Path(options.output)
    return {
        (row.name, seed): row.options(scale, str(output / f"{row.name}-seed{seed}"), seed)
        for seed in seeds
        for row in rows
    }


def report(table: Table, scale: TrainOptions, options: ReproduceOptions) -> dict[str, Any]:
    """Writes what all runs in `output` show of the table, whichever of them were asked for now."""
    from od_detr.experiments.report import write
    from od_detr.experiments.results import mean_curves, summarise
    from od_detr.experiments.runs import finished

    output, rows = Path(options.output), table.experiments()
    controls = [control for row in rows if (control := control_of(row)) is not None]
    found = (
        re.fullmatch(r".+-seed(\d+)", place.name)
        for place in output.glob("*-seed*")
        if RunFiles(place).done.exists()
    )
    seeds = {int(name[1]) for name in found if name}
    done: dict[str, dict[int, dict[str, Any]]] = {row.name: {} for row in [*rows, *controls]}
    for (name, seed), run in plan([*rows, *controls], scale, options, sorted(seeds)).items():
        facts = finished(run)
        if facts is not None:
            done[name][seed] = facts
    setting = _setting(options.scale, scale)
    means = {
        name: mean_curves([RunFiles(output / f"{name}-seed{seed}").metrics for seed in seeds])
        for name, seeds in done.items()
        if seeds
    }
    summary = summarise(rows, done, means)
    curves = {
        _with_seeds(row.title, done[row.name]): means[row.name] for row in rows if row.name in means
    }
    write(output, options.table, table.title, setting, summary, curves if table.curves else None)
    return {"table": options.table, "scale": options.scale, "setting": setting, "rows": summary}
