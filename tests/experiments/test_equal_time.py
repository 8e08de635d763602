"""Rows that are trained for the same time: what an epoch of each costs decides their epochs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from od_detr.cli.reproduce import ReproduceOptions, reproduce
from od_detr.experiments import equal_time
from od_detr.experiments.equal_time import (
    Clock,
    distilled_share,
    epoch_seconds,
    measured,
    relative_cost,
)
from od_detr.experiments.studies import FRONTIER
from od_detr.options import DistillOptions
from od_detr.run_files import RunFiles

ROWS = {row.name: row for row in FRONTIER.experiments()}


@pytest.fixture
def ask(tmp_path: Path) -> ReproduceOptions:
    data = tmp_path / "scenes"
    data.mkdir()
    for split in ("train", "val"):
        (data / f"{split}.json").write_text('{"images": []}')
    return ReproduceOptions(
        "frontier", data=str(data), output=str(tmp_path / "runs"), equal_time=True, epochs=12
    )


@pytest.mark.slow
def test_a_row_gets_the_epochs_that_its_baseline_has_time_for(ask, trainings, monkeypatch) -> None:
    calls = []

    def known(rows, shared):
        calls.append([*rows])
        return {"baseline": 2.0, "od": 3.0, "qfl": 2.0}

    monkeypatch.setattr(equal_time, "measured", known)
    reproduce(replace(ask, rows="baseline,qfl,od"))
    assert {name: run.epochs for name, run in trainings.options.items()} == {
        "baseline-seed0": 12,
        "qfl-seed0": 12,
        "od-seed0": 8,
    }
    assert trainings.options["od-seed0"].opt.drop == 7, "the drop keeps its share of the schedule"
    record = Path(ask.output) / "equal-time" / "epoch_seconds.json"
    assert json.loads(record.read_text())["seconds"]["od"] == 3.0
    reproduce(replace(ask, rows="baseline,qfl,od", seeds=2))
    assert len(calls) == 1, "a table that goes on is not measured again"


def test_a_row_measured_later_costs_as_much_of_its_baseline_as_now(
    options, monkeypatch, tmp_path
) -> None:
    """The record may be of another machine or load, or written by hand."""
    record = tmp_path / "epoch_seconds.json"
    record.write_text('{"seconds": {"baseline": 1.0, "qfl": 1.0}}')
    monkeypatch.setattr(equal_time, "measured", lambda *_: {"baseline": 40.0, "od": 60.0})
    monkeypatch.setattr(equal_time, "environment", lambda _: {})
    seconds = epoch_seconds([ROWS["od"]], options(), record)
    assert seconds == {"baseline": 1.0, "qfl": 1.0, "od": 1.5}
    assert json.loads(record.read_text())["seconds"] == seconds


@pytest.mark.parametrize(
    ("distill", "share"),
    [({}, 1.0), ({"stop": 0.5}, 0.5), ({"every": 2}, 0.5), ({"start": 3, "stop": 1.0}, 0.125)],
)
def test_the_share_of_steps_that_distil(options, distill, share) -> None:
    run = options(recipe="od", epochs=2, distill=DistillOptions(**distill))
    assert distilled_share(run, 4) == share
    assert distilled_share(replace(run, recipe="qfl"), 4) == 1.0


@pytest.mark.slow
def test_steps_of_the_rows_take_turns(options, monkeypatch) -> None:
    """On a clock that says how long a step of each takes, an epoch is weighted by what distils."""
    taken = []

    def tick(self: Clock) -> None:
        recipe = self.trial.parts.options.recipe
        taken.append(recipe)
        self.trial.training.step(self.batches[0])
        self.least = 3.0 if recipe == "od" else 1.0

    monkeypatch.setattr(Clock, "tick", tick)
    monkeypatch.setattr(equal_time, "TURNS", 1)
    shared = options(queries=12, epochs=4)
    rows = {name: ROWS[name] for name in ("baseline", "od", "od-half")}
    seconds = measured(rows, shared)
    assert not RunFiles(Path("unwritten")).directory.exists()
    assert taken == ["baseline", "od", "od", "qfl"]
    assert seconds == {"baseline": 3.0, "od": 9.0, "od-half": 6.0}  # of three steps an epoch
    assert relative_cost(ROWS["od-half"], seconds) == 2.0
    assert relative_cost(ROWS["baseline"], seconds) == 1.0


def test_every_candidate_differs_from_the_others(options) -> None:
    runs = [str(row.options(options(epochs=24))) for row in ROWS.values()]
    assert len(set(runs)) == len(runs)
