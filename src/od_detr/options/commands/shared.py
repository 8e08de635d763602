"""Options that several commands share."""

from __future__ import annotations

from typing import Any, Literal

from od_detr.options.fields import REQUIRED, option

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
WeightsName = Literal["best", "online", "teacher"]


def json_option() -> Any:
    """`--json`."""
    return option(False, "Print the result as one JSON object on the last line.")


def device_option() -> Any:
    """`--device`."""
    return option(
        "auto",
        "Device to compute on: auto, cpu, cuda, cuda:1, mps. auto uses a GPU if there is one.",
    )


def run_option() -> Any:
    """The run that a command reads."""
    return option(
        REQUIRED,
        "Folder of a run or of a saved detector, a checkpoint of other code, or hf:OWNER/NAME.",
        positional=True,
        known_as=("model",),
    )


def weights_option() -> Any:
    """`--weights`."""
    return option("best", "The best weights of the run, or its last online or teacher weights.")


def voc_origin_option() -> Any:
    """`--voc-origin`."""
    return option(
        1, "Coordinate of the first pixel in Pascal VOC files, 1 or 0.", at_least=0, at_most=1
    )
