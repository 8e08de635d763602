"""The text and the picture of an evaluation hold its numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from od_detr.evaluation import coco
from od_detr.reporting.evaluation import METRICS, described, format_metrics, format_table
from od_detr.reporting.evaluation_figure import evaluation_figure
from od_detr.reporting.terminal import text_console

# What rich takes for markup or an emoji, and matplotlib for a formula.
NAMES = ("sign [stop]", "[/x]", ":dog:", r"\[b]", r"$1 \bill$")


def results(classes: int, **changes: Any) -> dict[str, Any]:
    names = [f"class{number}" for number in range(classes)]
    at = {"precision": 0.5, "recall": 0.4, "F1": 0.444, "objects": 7}
    size = classes + 1
    matrix = [[10 if row == column else row for column in range(size)] for row in range(size)]
    curve = [number / 100 for number in range(101)]
    named = {"precision": curve, "recall": curve[::-1], "F1": curve}
    return {
        "AP": 0.3,
        "AP_nms": 0.327,
        "duplicates": 0.125,
        "per_iou": {f"{0.5 + step / 20:.2f}": 0.8 - step * 0.083 for step in range(10)},
        "per_class": {name: number / classes for number, name in enumerate(names)},
        "best_threshold": 0.42,
        "threshold": 0.42,
        "precision": 0.511,
        "recall": 0.622,
        "F1": 0.561,
        "classes": {name: at | {"best_threshold": 0.31, "best_F1": 0.47} for name in names},
        "curves": {"threshold": curve, "all": named, "classes": dict.fromkeys(names, named)},
        "errors": dict(
            zip(
                ("found", "missed", "background", "duplicate", "wrong_class", "badly_placed"),
                (101, 102, 103, 104, 105, 106),
                strict=True,
            )
        ),
        "confusion": {"classes": [*names, "background"], "matrix": matrix},
    } | changes


def text(content: dict[str, Any], of: Callable[..., Any] = described) -> str:
    console = text_console()
    console.width = 100
    with console.capture() as captured:
        console.print(of(content))
    return captured.get()


def metrics() -> dict[str, float]:
    return {name: number / 90 for number, name in enumerate(chain.from_iterable(METRICS), 1)}


def test_the_table_shows_every_figure_and_class() -> None:
    content = results(3) | metrics()
    shown = text(content | {"APl": -1.0}, format_table)
    assert all(name in shown for name in coco.METRICS)
    assert tuple(coco.METRICS) == METRICS[0] + METRICS[1]
    for name, value in content["per_class"].items():
        assert f"{name} {100 * value:>5.1f}" in shown
    assert shown.splitlines()[1].split() == ["1.1", "2.2", "3.3", "4.4", "5.6", "-"]


def test_the_text_holds_threshold_errors_and_duplicates() -> None:
    shown = text(results(3))
    for figure in ("0.42", "51.1", "62.2", "56.1", "12.5", "30.0", "32.7", "0.31"):
        assert figure in shown
    ious, figures = shown.splitlines()[:2]
    assert ious.split() == ["IoU", *(f"0.{iou}" for iou in range(50, 100, 5))]
    assert figures.split()[:3] == ["AP", "80.0", "71.7"]
    assert all(str(count) in shown for count in range(101, 107))


def test_another_best_threshold_is_shown_with_its_f1() -> None:
    shown = text(results(3, best_threshold=0.77))
    assert "0.77" in shown
    assert "100.0" in shown
    assert "0.42" in text(results(3, best_threshold=None))


def test_of_many_classes_the_most_frequent_confusions_are_shown() -> None:
    few, many = text(results(3)), text(results(20))
    assert "missed" in few
    assert few.count("class2") >= 3
    rows = [line for line in many.splitlines() if line.startswith("class19  ")]
    assert any(line.split()[-1] == "19" for line in rows)


def test_a_class_without_objects_has_no_figures_of_its_own() -> None:
    content = results(1)
    content["per_class"]["class0"] = -1.0
    content["classes"]["class0"] |= {"objects": 0, "best_F1": 0.0}
    line = next(line for line in text(content).splitlines() if line.startswith("class0"))
    assert line.split()[1:3] == ["0", "-"]
    assert line.split()[-1] == "-"


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 5, 80])
def test_the_picture_is_drawn_for_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    evaluation_figure(results(classes), tmp_path / "new" / "figure.png", "run")
    assert Image.open(tmp_path / "new" / "figure.png").size[0] > 1000


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str) -> None:
    content = (
        results(1) | metrics() | {"confusion": {"classes": [name, "none"], "matrix": [[1, 2]] * 2}}
    )
    for key in ("per_class", "classes"):
        content[key] = {name: content[key]["class0"]}
    assert text(content).count(name) == 3
    assert text(content, format_table).count(name) == 1
    assert name in text(content, lambda each: format_metrics(each, name))


@pytest.mark.slow
def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    name = NAMES[-1]
    content = results(1)
    content["per_class"] = {name: 0.5}
    content["confusion"]["classes"][0] = name
    evaluation_figure(content, tmp_path / "figure.png", name)
    assert (tmp_path / "figure.png").is_file()
