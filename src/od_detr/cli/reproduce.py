"""`od-detr reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.errors import InputError
from od_detr.options import TrainOptions, check_limits
from od_detr.options.commands.shared import DeviceName, json_option
from od_detr.options.fields import REQUIRED, option


@dataclass(frozen=True)
class ReproduceOptions:
    """Train the rows of a table or figure of the paper and compare the results with the paper's."""

    table: str = option(
        REQUIRED,
        "table1 to table7, fig1, fig5, fig6; frontier (cheaper forms of od); convergence (three "
        "architectures).",
        positional=True,
    )
    scale: Literal["tiny", "small", "fine-tuning", "paper"] = option(
        "tiny",
        "Size of the runs. tiny: built-in scenes on a CPU. small: real images on a CPU or a small "
        "GPU. fine-tuning: real images, from the weights of --init. paper: COCO on 8 GPUs.",
    )
    init: str | None = option(
        None,
        "Trained detector that all rows start from, with --scale fine-tuning; see `od-detr train`.",
        metavar="FROM",
        shown="none",
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
        "Folder of labelled images: COCO, YOLO or Pascal VOC.",
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
    equal_time: bool = option(
        False,
        "Train every row for as long as its baseline takes, not for as many epochs. What an epoch "
        "of each costs is measured first. Runs go to the folder equal-time in --output.",
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
    device: DeviceName | None = option(None, "Device to train on.", shown="set by the scale")
    devices: int | None = option(
        None,
        "Devices for each run. The total batch stays that of the scale.",
        at_least=1,
        shown="set by the scale",
    )
    jobs: int = option(1, "Runs at the same time, in processes of one thread each.", at_least=1)
    list: bool = option(False, "Print the rows and their commands, and run nothing.")
    json: bool = json_option()

    @property
    def changes(self) -> dict[str, Any]:
        """What the user chose instead of the scale's options, by the names of `od-detr train`."""
        names = ("init", "epochs", "image_size", "backbone", "backbone_weights", "device")
        chosen = {name: getattr(self, name) for name in names} | {"opt.lr": self.lr}
        return {name: value for name, value in chosen.items() if value is not None}


def reproduce(options: ReproduceOptions) -> dict[str, Any]:
    """Trains the missing runs of a table and writes its report, or prints the rows with --list."""
    from od_detr.experiments.plan import Plan, check_jobs, shared_options
    from od_detr.experiments.reproduce import train_table
    from od_detr.experiments.tables import chosen_rows, named_table

    table = named_table(options.table)
    rows = chosen_rows(table, options.rows)
    if options.list:
        return _list(options, table.title, rows)
    check_limits(options)
    output = Path(options.output)
    if output.is_file():
        raise InputError(f"--output {output}: is a file; give a folder")
    if options.equal_time:
        output /= "equal-time"
    data = None if options.data is None else Path(options.data)
    shared = shared_options(options.scale, data, output, options.changes, options.devices)
    check_jobs(options.jobs, shared)
    costs = _costs(table, rows, shared, output) if options.equal_time else {}
    plan = Plan(options.table, table, options.scale, shared, output, costs)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return train_table(plan, rows, seeds, options.jobs)


def _costs(table: Any, rows: Any, shared: TrainOptions, output: Path) -> dict[str, float]:
    """What an epoch of each row costs that was ever measured, as a multiple of its baseline's."""
    from od_detr.experiments.equal_time import epoch_seconds, relative_cost
    from od_detr.experiments.scales import prepare

    prepare(shared)
    seconds = epoch_seconds(rows, shared, output / "epoch_seconds.json")
    known = (row for row in table.experiments() if row.name in seconds)
    return {row.name: relative_cost(row, seconds) for row in known}


def _list(options: ReproduceOptions, title: str, rows: Any) -> dict[str, Any]:
    from od_detr.experiments.tables import listing

    needs = {"tiny": "", "fine-tuning": " --data DIR --init FROM"}
    needed = needs.get(options.scale, " --data DIR")
    print(listing(title, rows))
    print("\nThese commands are the paper's own runs on 8 GPUs. To train a row at this scale:")
    print(f"od-detr reproduce {options.table} --scale {options.scale}{needed} --rows NAME")
    return {"rows": [row.command for row in rows]}
