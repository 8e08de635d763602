"""Without `--epochs` a run is as long as its number of steps and its start ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from od_detr.options import TrainOptions
from od_detr.training.fit import fit
from od_detr.training.plan import assembled, planned
from od_detr.training.setup import epochs as module
from od_detr.training.setup.epochs import FROM_NEW, FROM_TRAINED, MOST, default_epochs, with_epochs

Options = Callable[..., TrainOptions]


def test_few_steps_an_epoch_make_more_epochs_and_many_the_papers() -> None:
    assert default_epochs(118287 // 16, trained=False) == 24
    assert default_epochs(51, trained=False) == -(-FROM_NEW // 51)
    assert default_epochs(100, trained=True) == 24
    assert default_epochs(40, trained=True) == FROM_TRAINED // 40
    assert default_epochs(1, trained=False) == default_epochs(1, trained=True) == MOST


def test_a_number_that_is_given_wins(capsys: pytest.CaptureFixture[str]) -> None:
    given = TrainOptions("data", epochs=3)
    assert with_epochs(given, 51) is given
    assert capsys.readouterr().out == ""


def test_the_number_and_its_reason_are_said_and_the_drop_follows(
    options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 steps an epoch would need 1000 epochs."""
    parts = assembled(planned(options(epochs=None)))
    assert (parts.options.epochs, parts.options.opt.drop) == (100, 83)
    said = next(each for each in capsys.readouterr().out.splitlines() if "--epochs" in each)
    assert said.startswith("--epochs is 100: ")
    assert "an epoch has 3" in said


@pytest.mark.slow
def test_a_resumed_run_keeps_the_number(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "DEFAULT_EPOCHS", 1)
    monkeypatch.setattr(module, "MOST", 1)
    fit(options(epochs=None, logger="csv"))
    monkeypatch.setattr(module, "MOST", 5)
    capsys.readouterr()
    assert planned(options(epochs=None, resume=True)).options.epochs == 1
    assert "--epochs" not in capsys.readouterr().out
