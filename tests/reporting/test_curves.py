"""The curves are drawn from what metrics.csv holds, gaps included."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from od_detr.reporting.curves import LEAST, MOST, curves


def rows(epochs: int = 6, **columns: str) -> list[dict[str, str]]:
    """Rows as csv.DictReader gives them: text, and empty where an epoch has no value."""
    return [
        {
            "epoch": str(epoch),
            "seconds": str(90 * epoch),
            "train/loss": str(9 - epoch),
            "val/AP": f"{epoch / 20}",
            "val/teacher/AP": f"{epoch / 18}",
            "stability/instability": str(4 - epoch / 2) if epoch else "",
            "stability/teacher_instability": str(2 - epoch / 4) if epoch else "",
            "stability/consistency": f"{0.5 + epoch / 20}",
        }
        | columns
        for epoch in range(epochs)
    ]


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures saved during the test."""
    saved: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k))[1]
    )
    return saved


@pytest.mark.slow
def test_every_column_becomes_a_curve_at_its_epochs(tmp_path: Path, drawn) -> None:
    file = tmp_path / "metrics.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows()[0])
        writer.writeheader()
        writer.writerows(rows())
    with file.open() as stream:
        curves(
            {"baseline": rows(4), "od": list(csv.DictReader(stream))},
            tmp_path / "new" / "curves.png",
        )
    with Image.open(tmp_path / "new" / "curves.png") as image:
        assert image.format == "PNG"
    precision, timed, loss, instability, consistency, _ = drawn[0].axes
    assert [len(axes.lines) for axes in drawn[0].axes] == [4, 4, 2, 4, 2, 0]
    np.testing.assert_allclose(precision.lines[2].get_xydata(), [(e, 5 * e) for e in range(6)])
    np.testing.assert_allclose(timed.lines[2].get_xydata(), [(1.5 * e, 5 * e) for e in range(6)])
    np.testing.assert_allclose(
        instability.lines[2].get_xydata(), [(e, 4 - e / 2) for e in range(1, 6)]
    )
    np.testing.assert_allclose(consistency.lines[1].get_ydata(), [50 + 5 * e for e in range(6)])
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [9, 8, 7, 6])
    names = [text.get_text() for text in drawn[0].axes[-1].get_legend().get_texts()]
    assert names == ["baseline", "od", "online", "moving average (teacher)"]
    assert precision.lines[0].get_color() != precision.lines[2].get_color()


@pytest.mark.slow
def test_the_range_of_several_runs_is_shaded(tmp_path: Path, drawn) -> None:
    several = [
        row | {f"val/AP{LEAST}": "0.1", f"val/AP{MOST}": "0.5", f"val/teacher/AP{LEAST}": "0"}
        for row in rows(4)
    ]
    curves({"one run": rows(4), "mean of three": several}, tmp_path / "curves.png")
    precision, timed, loss, *_ = drawn[0].axes
    for axes, wide in ((precision, 3), (timed, 4.5)):  # epochs, minutes
        (band,) = axes.collections
        np.testing.assert_allclose(band.get_paths()[0].get_extents().bounds, (0, 10, wide, 40))
    assert not loss.collections
    assert drawn[0].axes[-1].get_legend().get_texts()[-1].get_text() == "range of the runs, online"


@pytest.mark.slow
def test_what_was_not_recorded_is_said_and_never_drawn(tmp_path: Path, drawn) -> None:
    nothing = {
        "val/teacher/AP": "",
        "stability/teacher_instability": "nan",
        "stability/consistency": "inf",
    }
    curves({"baseline": rows(1, **nothing)}, tmp_path / "curves.png")
    said = [[text.get_text() for text in axes.texts] for axes in drawn[0].axes]
    assert said == [[], [], [], ["not recorded"], ["not recorded"], []]
    assert [text.get_text() for text in drawn[0].axes[-1].get_legend().get_texts()] == ["baseline"]
    curves({"fresh": []}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0


@pytest.mark.slow
def test_evaluation_costs_no_plotting_or_evaluation_library_to_import() -> None:
    modules = "od_detr.evaluation.coco, od_detr.evaluation.stability, od_detr.reporting.curves"
    heavy = "{'matplotlib', 'supervision', 'faster_coco_eval', 'rich'}"
    code = f"import sys, {modules}; found = {heavy} & set(sys.modules); assert not found, found"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
