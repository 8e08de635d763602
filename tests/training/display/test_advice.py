"""What is said if AP stays near zero, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from od_detr.data.dataset import CocoDataset
from od_detr.data.transforms import Transform
from od_detr.evaluation.mistakes import KINDS
from od_detr.options import TrainOptions
from od_detr.training.display.advice import Facts, advice, object_sides
from od_detr.training.fit import fit

ERRORS = dict.fromkeys(KINDS, 0)
FACTS = Facts(1000, 4000, 0.0, ERRORS, 60.0, 50.0, pretrained=False)


@pytest.mark.parametrize(
    "quiet",
    [
        {"ap": 0.02},
        {"ap": -1.0},  # there is nothing to find
        {"step": 999},
    ],
)
def test_nothing_is_said_too_early_or_where_ap_is_not_near_zero(quiet: dict) -> None:
    assert advice(replace(FACTS, **quiet)) is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"side": 0.4, "input_side": 0.3}, ["0.4 pixels", "unit"]),
        ({"input_side": 5.0}, ["5.0 pixels", "--image-size"]),
        ({"errors": ERRORS | {"wrong_class": 90, "found": 4}}, ["90", "classes"]),
        ({"step": 300, "steps": 900}, ["900 steps", "--init"]),
        ({"step": 300, "steps": 900, "pretrained": True}, ["samples/"]),
        ({"step": 2, "steps": 2, "pretrained": True}, ["2 steps is short", "--epochs"]),
        ({"side": math.nan, "input_side": math.nan}, ["samples/"]),
    ],
)
def test_the_cause_is_what_the_measurements_speak_for(facts: dict, words: list[str]) -> None:
    line = advice(replace(FACTS, **facts))
    assert line is not None
    assert all(word in line for word in words)
    assert "\n" not in line


@pytest.mark.parametrize("steps", [2, 900, 4000])
def test_a_run_that_has_init_is_not_advised_to_use_it(steps: int) -> None:
    facts = replace(FACTS, step=steps, steps=steps)
    assert "--init" in (advice(facts) or "")
    assert "--init" not in (advice(replace(facts, pretrained=True)) or "--init")


def test_sides_are_measured_in_the_files_and_as_resized(scenes: Path) -> None:
    data = CocoDataset.from_folder(scenes, "val", Transform(128, "none"))
    own, resized = object_sides(data, data.input_sizes())
    assert own > 3
    assert resized == pytest.approx(2 * own)  # scenes of 64 pixels


@pytest.mark.slow
def test_a_run_says_it_once(
    options: Callable[..., TrainOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    fit(options(epochs=3))
    assert capsys.readouterr().out.count("AP is near zero after") == 1
