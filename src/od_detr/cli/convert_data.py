"""`od-detr convert-data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.options.commands.shared import json_option, voc_origin_option
from od_detr.options.fields import REQUIRED, option


@dataclass(frozen=True)
class ConvertDataOptions:
    """Write a data set in COCO or YOLO format, whatever format it has."""

    data: str = option(
        REQUIRED, "The data set's folder.", positional=True, known_as=("dataset", "source")
    )
    to: Literal["coco", "yolo"] = option("coco", "Format to write.", known_as=("format",))
    output: str = option("converted", "New folder to write.", metavar="DIR", known_as=("out",))
    link: bool = option(False, "Whether images are hard links instead of copies.")
    difficult: Literal["ignore", "keep"] = option(
        "ignore", "Pascal VOC's difficult objects: mark them as crowd, or keep them like any other."
    )
    voc_origin: int = voc_origin_option()
    json: bool = json_option()


def convert_data(options: ConvertDataOptions) -> dict[str, Any]:
    """Converts and reports what was written."""
    from od_detr.data.counts import counted
    from od_detr.data.formats.choices import Choices
    from od_detr.data.writing.conversion import convert_data as convert

    choices = Choices(difficult=options.difficult, voc_origin=options.voc_origin)
    splits = convert(Path(options.data), options.to, Path(options.output), choices, options.link)
    for split, made in splits.items():
        notes = (
            f"{counted(made.crowds, 'crowd box')} left out, which YOLO cannot hold",
            f"boxes of {counted(made.joined, 'repeated image')} joined with its first entry",
            f"{counted(made.renamed, 'image')} renamed, so that each has its own label file",
        )
        numbers = (made.crowds, made.joined, made.renamed)
        print(
            f"{split}: {counted(made.images, 'image')}, {counted(made.boxes, 'box')}, "
            f"{counted(made.classes, 'class')}"
            + "".join(f"; {note}" for note, number in zip(notes, numbers, strict=True) if number)
        )
    counts = {split: {"images": made.images, "boxes": made.boxes} for split, made in splits.items()}
    print(f"{options.to.upper()} data set in {options.output}")
    return {"output": options.output, "format": options.to, "splits": counts}
