"""`--budget` chooses as many epochs as fit, writes them down, and contradicts nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from od_detr.data.dataset import CocoDataset
from od_detr.data.transforms import Sample
from od_detr.dotted import flat
from od_detr.errors import InputError
from od_detr.options import DistillOptions, TrainOptions
from od_detr.plain_yaml import parse_yaml
from od_detr.training.cost import budget as module
from od_detr.training.cost.budget import epoch_seconds, seconds_of, within_budget
from od_detr.training.cost.trial import Trial
from od_detr.training.fit import fit
from od_detr.training.module import Training
from od_detr.training.plan import planned

Options = Callable[..., TrainOptions]


def unscheduled(options: Options, **changes: object) -> TrainOptions:
    return options(epochs=None, **changes)


@pytest.fixture
def an_epoch_of_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "epoch_seconds", lambda trial: 600.0)


@pytest.mark.slow
@pytest.mark.usefixtures("an_epoch_of_ten_minutes")
@pytest.mark.parametrize(("budget", "epochs", "drop"), [("2h", 11, 9), ("700s", 1, 1)])
def test_as_many_epochs_as_fit_and_the_drop_with_them(
    budget: str, epochs: int, drop: int, options: Options
) -> None:
    plan = within_budget(planned(unscheduled(options, budget=budget)))
    assert plan.options.epochs == epochs
    assert plan.options.drop_epoch == drop


@pytest.mark.slow
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
    for epochs in (3, 24):
        with pytest.raises(InputError, match=rf"^--budget and --epochs {epochs} "):
            within_budget(planned(options(epochs=epochs, budget="1h")))
    plan = planned(unscheduled(options, budget="1h"))
    with pytest.raises(InputError, match=r"^--budget: a resumed run"):
        within_budget(replace(plan, options=replace(plan.options, resume=True)))
    with pytest.raises(InputError, match=r"^--budget measures a single process"):
        within_budget(replace(plan, place=replace(plan.place, world_size=2)))


@pytest.mark.slow
@pytest.mark.usefixtures("an_epoch_of_ten_minutes")
@pytest.mark.parametrize(
    "distill", [DistillOptions(start=3), DistillOptions(stop=0.5), DistillOptions(every=2)]
)
def test_a_budget_beside_a_schedule_of_distillation_is_refused(
    distill: DistillOptions, options: Options
) -> None:
    run = unscheduled(options, budget="1h", distill=distill)
    with pytest.raises(InputError, match=r"^--budget measures steps that all distil"):
        within_budget(planned(replace(run, recipe="od")))
    within_budget(planned(replace(run, recipe="qfl")))


def test_a_full_device_is_one_line_with_what_needs_less(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Training, "step", full)
    with pytest.raises(InputError, match="memory is full; give --batch-size 2 --accumulate 2 or"):
        within_budget(planned(unscheduled(options, budget="1h")))


@pytest.mark.slow
def test_the_epochs_are_written_down_and_the_budget_is_not(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "epoch_seconds", lambda trial: 1800.0)
    run = fit(unscheduled(options, budget="1h"))
    config = flat(parse_yaml((run.directory / "config.yaml").read_text()))
    assert config["epochs"] == len(run.rows) == 1
    assert config["opt.drop"] == 1
    assert "budget" not in config
    assert Path(run.directory / "best").is_dir()


@pytest.mark.slow
def test_an_epoch_is_measured_by_real_steps(options: Options) -> None:
    trial = Trial(planned(options(workers=0)))
    assert epoch_seconds(trial) > 0
    assert trial.parts.state.step == module.WARM_UP + module.STEPS


@pytest.mark.slow
def test_loading_counts_although_workers_load_ahead_in_slow_first_steps(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, read, slept = 0.1, CocoDataset.decoded, [0.5, 0.5]

    def slowly(self: CocoDataset, place: int) -> Sample:
        time.sleep(load)
        return read(self, place)

    monkeypatch.setattr(CocoDataset, "decoded", slowly)
    monkeypatch.setattr(Training, "step", lambda *_: time.sleep(slept.pop() if slept else 0))
    monkeypatch.setattr(module, "STEPS", 1)
    monkeypatch.setattr(module, "validated_seconds", lambda trial: 0.0)
    trial = Trial(planned(options(workers=1, batch_size=1)))
    assert epoch_seconds(trial) > 0.9 * load * len(trial.parts.train)
