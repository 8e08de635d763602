"""`od-detr doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from od_detr.architectures import ModelName
from od_detr.options.commands.shared import json_option, voc_origin_option
from od_detr.options.fields import REQUIRED, option

if TYPE_CHECKING:
    from od_detr.doctor.diagnosis import Diagnosis, Examination


@dataclass(frozen=True)
class DoctorOptions:
    """Check a data set before any training: what is wrong, what it costs, and how to fix it."""

    data: str = option(
        REQUIRED, "Folder of the data set, in COCO, YOLO or Pascal VOC layout.", positional=True
    )
    model: ModelName | None = option(
        None, "Compare object counts with the queries of this architecture.", shown="none"
    )
    image_size: int = option(
        800,
        "Short side of the images in training, in pixels.",
        at_least=16,
        known_as=("imgsz", "img_size", "size"),
    )
    queries: int | None = option(
        None,
        "Number of object queries.",
        at_least=1,
        shown="that of --model",
        known_as=("num_queries",),
    )
    no_decode: bool = option(
        False, "Read the headers of the images only. Finds no damaged pixels and no duplicates."
    )
    difficult: Literal["ignore", "keep"] = option(
        "ignore", "Pascal VOC's difficult objects: ignore them, or keep them like any other."
    )
    voc_origin: int = voc_origin_option()
    fix: str | None = option(
        None,
        "Write cleaned annotations and a list of what was left out to this new folder.",
        metavar="OUT",
        shown="none",
    )
    report: str | None = option(
        None,
        "Write a self-contained HTML page with charts and pictures to this file.",
        metavar="FILE",
        shown="none",
    )
    workers: int | None = option(
        None,
        "Number of processes that decode images.",
        at_least=0,
        shown="CPU cores",
        known_as=("num_workers",),
    )
    json: bool = json_option()


def doctor(options: DoctorOptions) -> dict[str, Any]:
    """Examines, and prints the table."""
    from od_detr.doctor.diagnosis import diagnosed
    from od_detr.doctor.report.page import write_page
    from od_detr.doctor.report.table import summary, table
    from od_detr.reporting.terminal import text_console

    _check_outputs(options)
    found = diagnosed(Path(options.data), _examination(options), _progress)
    for line in summary(found):
        print(line)
    if found.problems:
        text_console().print(table(found))
    else:
        print("nothing was found")
    if options.report is not None:
        write_page(found, Path(options.report))
        print(f"report: {options.report}")
    return found.as_json() | (_verdict(found) if options.fix is None else _fixed(found, options))


def _check_outputs(options: DoctorOptions) -> None:
    """Refuses what could not be written, before anything is examined."""
    from od_detr.data.writing.folder import refuse_taken
    from od_detr.doctor.report.page import refuse_other_files
    from od_detr.errors import InputError

    if options.fix is not None:
        refuse_taken(Path(options.fix), "--fix")
    if options.report is None:
        return
    refuse_other_files(Path(options.report))
    if options.fix and Path(options.fix).resolve() in Path(options.report).resolve().parents:
        raise InputError(
            f"--report {options.report}: is in the folder that --fix makes; give another"
        )


def _verdict(found: Diagnosis) -> dict[str, Any]:
    """The line of error, if a training would refuse the data."""
    if not found.errors:
        return {}
    first, more = found.errors[0], len(found.errors) - 1
    rest = f" (and {more} more kinds of problems that stop a training)" if more else ""
    return {"error": f"{first.source}: {first.examples[0]}; {first.kind.fix}{rest}"}


def _fixed(found: Diagnosis, options: DoctorOptions) -> dict[str, Any]:
    """Writes the cleaned set and examines it."""
    from od_detr.data.counts import counted
    from od_detr.doctor.cleaning.fix import QUARANTINE, cleaned, write_cleaned
    from od_detr.doctor.diagnosis import diagnosed

    made, output = cleaned(found), Path(options.fix or "")
    write_cleaned(made, output)
    for split in made.splits:
        left = split.annotations
        images, boxes = counted(len(left.image_ids), "image"), counted(len(left.labels), "box")
        print(f"{split.name}: {images} and {boxes} written")
    number = sum(each.count for each in made.rejected)
    print(f"{counted(number, 'record')} left out, see {output / QUARANTINE}")
    after = diagnosed(output, replace(_examination(options), decode=False))
    skipped = [asdict(each) for each in made.rejected]
    return {"fixed": str(output), "skipped": skipped} | _verdict(after)


def _examination(options: DoctorOptions) -> Examination:
    from od_detr.data.formats.choices import Choices
    from od_detr.doctor.checks.fit import Model
    from od_detr.doctor.diagnosis import Examination
    from od_detr.errors import InputError
    from od_detr.machine.limits import cores

    if options.queries is not None and options.model is None:
        raise InputError("--queries: counts for a model only; give --model, too")
    return Examination(
        options.image_size,
        None if options.model is None else Model.named(options.model, options.queries),
        not options.no_decode,
        cores() if options.workers is None else options.workers,
        Choices(difficult=options.difficult, voc_origin=options.voc_origin),
    )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal; nothing where standard error is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    disabled = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disabled) as bar:
        task = bar.add_task("images", total=total)
        yield lambda done: bar.advance(task, done)
