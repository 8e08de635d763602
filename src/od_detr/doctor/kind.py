"""What a kind of problem is.

`harm` is the part of an affected box, image or class that is lost to training or measured wrongly,
between 0 and 1. It is a judgement, not a measurement, and only puts the kinds in a sensible order:
1 where the record teaches nothing or something wrong, about 1/2 where one of two readings is right,
0.1 to 0.3 where most of it survives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from od_detr.data.findings import Severity

Unit = Literal["boxes", "images", "classes", "splits"]


@dataclass(frozen=True)
class Kind:
    """One kind of problem.

    Attributes:
        title: what is wrong, in a few words.
        unit: what is counted.
        harm: the part of each that is lost, between 0 and 1.
        fix: what the user can do.
        severity: `error` stops a training, `warning` costs accuracy, `note` costs nothing.
        cleaned: what `--fix` does about it; empty if nothing.
    """

    title: str
    unit: Unit
    harm: float
    fix: str
    severity: Severity = "warning"
    cleaned: str = ""


def stops(unit: Unit, title: str, fix: str, cleaned: str = "") -> Kind:
    """A kind that stops a training."""
    return Kind(title, unit, 1.0, fix, "error", cleaned)


def costs(harm: float, unit: Unit, title: str, fix: str, cleaned: str = "") -> Kind:
    """A kind that costs accuracy."""
    return Kind(title, unit, harm, fix, "warning", cleaned)


def notes(unit: Unit, title: str, fix: str, cleaned: str = "") -> Kind:
    """A kind that is only worth knowing."""
    return Kind(title, unit, 0.0, fix, "note", cleaned)


LEAVES_BOX = "leaves the box out"
LEAVES_IMAGE = "leaves the image out"
