"""`--budget` chooses as many epochs as fit, writes them down, and contradicts nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from od_detr.dotted import flat
from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.options.config_file import parse_yaml
from od_detr.training.cost import budget as module
from od_detr.training.cost.budget import epoch_seconds, seconds_of, trial, within_budget
from od_detr.training.fit import fit
from od_detr.training.plan import planned

Options = Callable[..., TrainOptions]


def unscheduled(options: Options, **changes: object) -> TrainOptions:
    return options(epochs=TrainOptions.epochs, **changes)


@pytest.fixture
def an_epoch_of_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "epoch_seconds", lambda parts: 600.0)


@pytest.mark.usefixtures("an_epoch_of_ten_minutes")
@pytest.mark.parametrize(("budget", "epochs", "drop"), [("2h", 11, 9), ("700s", 1, 1)])
def test_as_many_epochs_as_fit_and_the_drop_with_them(
    budget: str, epochs: int, drop: int, options: Options
) -> None:
    plan = within_budget(planned(unscheduled(options, budget=budget)))
    assert plan.options.epochs == epochs
    assert plan.options.drop_epoch == drop


@pytest.mark.usefixtures("an_epoch_of_ten_minutes")
def test_less_than_one_epoch_is_refused_with_its_time(options: Options) -> None:
    with pytest.raises(InputError, match=r"^--budget 5m: one epoch takes about 0:10:00"):
        within_budget(planned(unscheduled(options, budget="5m")))


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1.5h", 5400)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "2 h", "0s", "-1h", "2d", "9" * 400 + "h", "h"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--budget must be a time such as 2h"):
        seconds_of(text)


def test_a_budget_beside_another_length_is_refused(options: Options) -> None:
    with pytest.raises(InputError, match=r"^--budget and --epochs 3"):
        within_budget(planned(options(epochs=3, budget="1h")))
    plan = planned(unscheduled(options, budget="1h"))
    with pytest.raises(InputError, match=r"^--budget: a resumed run"):
        within_budget(replace(plan, options=replace(plan.options, resume=True)))
    with pytest.raises(InputError, match=r"^--budget measures a single process"):
        within_budget(replace(plan, place=replace(plan.place, world_size=2)))


def test_the_epochs_are_written_down_and_the_budget_is_not(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "epoch_seconds", lambda parts: 1800.0)
    run = fit(unscheduled(options, budget="1h"))
    config = flat(parse_yaml((run.directory / "config.yaml").read_text()))
    assert config["epochs"] == len(run.rows) == 1
    assert config["opt.drop"] == 1
    assert "budget" not in config
    assert Path(run.directory / "best").is_dir()


def test_an_epoch_is_measured_by_real_steps(options: Options) -> None:
    plan = planned(options())
    parts = trial(plan)
    assert epoch_seconds(parts) > 0
    assert parts.state.step == module.WARM_UP + module.STEPS
