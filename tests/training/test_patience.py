"""Early stopping: counted in validations without a higher AP, and the same after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.training.test_resume import Stop, assert_same_run, stop_at

from od_detr.errors import Interrupted
from od_detr.options import TrainOptions
from od_detr.training.fit import fit
from od_detr.training.nonfinite.guard import FiniteGuard
from od_detr.training.record.state import RunState
from od_detr.training.record.validation import Validation

Options = Callable[..., TrainOptions]


def validate_to(monkeypatch: pytest.MonkeyPatch, aps: Sequence[float]) -> None:
    """Makes one validation after another end with these APs."""
    remaining = iter(aps)
    monkeypatch.setattr(Validation, "best", property(lambda _: ("online", next(remaining))))


def test_only_a_higher_ap_is_a_gain_and_of_equals_the_last_is_best() -> None:
    state = RunState(Validation({}), FiniteGuard(1))
    seen = [
        (state.rank_validation(ap), state.without_gain, state.best_ap)
        for ap in (-1.0, 0.2, 0.1, 0.2, 0.3)
    ]
    assert seen == [
        (True, 0, -1.0),
        (True, 0, 0.2),
        (False, 1, 0.2),
        (True, 2, 0.2),
        (True, 0, 0.3),
    ]


@pytest.mark.slow
def test_a_run_ends_after_so_many_validations_without_a_gain_and_may_be_continued(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    validate_to(monkeypatch, [0.1, 0.3, 0.2, 0.1, 0.2, 0.1])
    run = fit(options(epochs=6, patience=2))
    assert [row["epoch"] for row in run.rows] == [1, 2, 3, 4]
    assert json.loads((run.directory / "best" / "config.json").read_text())["epoch"] == 2
    said = [line for line in capsys.readouterr().out.splitlines() if "--patience" in line]
    assert len(said) == 1
    assert "30.0" in said[0]
    assert len(fit(options(epochs=6, patience=2, resume=True)).rows) == 4
    assert len(fit(options(epochs=6, patience=4, resume=True)).rows) == 6


@pytest.mark.slow
def test_a_validation_set_without_objects_tries_no_ones_patience(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate_to(monkeypatch, [-1.0] * 3)
    assert len(fit(options(epochs=3, patience=1)).rows) == 3


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aps = [0.3, 0.2, 0.1, 0.1, 0.1]
    validate_to(monkeypatch, aps)
    expected = fit(options(epochs=5, patience=2, output=str(tmp_path / "whole"))).directory
    validate_to(monkeypatch, aps)
    with monkeypatch.context() as patch:
        stop_at(patch, Stop(2, 0, 7))
        with pytest.raises(Interrupted):
            fit(options(epochs=5, patience=2))
    run = fit(options(epochs=5, patience=2, resume=True))
    assert len(run.rows) == 3
    assert_same_run(run.directory, expected)
