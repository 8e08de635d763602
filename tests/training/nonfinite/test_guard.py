"""A step that is not finite moves nothing, is counted, and cannot go on for ever."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from od_detr.checkpoints import load_checkpoint
from od_detr.errors import NonFiniteError
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.fit import fit
from od_detr.training.module import Training
from od_detr.training.nonfinite.guard import FiniteGuard, Statistics, all_finite
from od_detr.training.recipe import Recipe

NAN, INF = float("nan"), float("inf")


def judged(guard: FiniteGuard, loss: float, norm: float, step: int = 1) -> float:
    take = guard.judge(torch.tensor(loss), torch.tensor(norm), (7, 9), step)
    return float(take)


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (1.0, INF), (-INF, NAN)])
def test_a_bad_step_is_not_taken_and_its_images_are_named(loss: float, norm: float) -> None:
    guard = FiniteGuard()
    assert judged(guard, loss, norm) == 0
    line = guard.settle([torch.ones(2)])
    assert line
    assert "[7, 9]" in line
    assert guard.skipped == 1


def test_only_steps_in_a_row_count_towards_the_limit() -> None:
    guard = FiniteGuard(limit=2)
    for loss in (NAN, 1.0, NAN, 1.0):
        assert judged(guard, loss, 1.0) == (loss == 1.0)
        guard.settle([])
    assert guard.skipped == 2
    judged(guard, NAN, 1.0)
    guard.settle([])
    judged(guard, NAN, 1.0)
    with pytest.raises(NonFiniteError):
        guard.settle([])


def test_weights_that_are_not_finite_stop_the_run_at_once() -> None:
    guard = FiniteGuard(limit=10)
    judged(guard, NAN, 1.0)
    with pytest.raises(NonFiniteError):
        guard.settle([torch.tensor([1.0, INF])])


def test_all_finite_sees_one_value_among_many_and_no_whole_numbers() -> None:
    assert all_finite([torch.full((3,), 3e38), torch.tensor([2**40]), torch.zeros(0)])
    assert not all_finite([torch.zeros(5), torch.tensor([0.0, NAN])])


def test_running_statistics_are_put_back_only_where_the_step_is_not_taken() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    statistics = Statistics(network)
    before = copy.deepcopy(dict(network.named_buffers()))
    statistics.keep()
    network(torch.full((2, 3, 4, 4), NAN))
    statistics.put_back_unless(torch.tensor(0.0))
    assert all(torch.equal(before[name], each) for name, each in network.named_buffers())
    statistics.keep()
    network(torch.randn(2, 3, 4, 4))
    statistics.put_back_unless(torch.tensor(1.0))
    assert not torch.equal(before["1.running_mean"], network[1].running_mean)


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> list[tuple[int, ...]]:
    """Makes one loss term NaN at these steps (counted from 0); images of those steps are added."""
    original, backward, guilty, now = Recipe.losses, Training.backward, [], [-1]

    def poisoned(self: Recipe, student: nn.Module, batch: object, *rest: object) -> dict:
        terms = original(self, student, batch, *rest)
        if now[0] in steps:
            guilty.append(batch.image_ids)
            terms["matching/l1/1"] = terms["matching/l1/1"] * NAN
        return terms

    def trained(self: Training, *args: object) -> torch.Tensor:
        """What a step costs is measured before the first one; that is none of the steps."""
        now[0] = self.state.step
        loss = backward(self, *args)
        now[0] = -1
        return loss

    monkeypatch.setattr(Training, "backward", trained)
    monkeypatch.setattr(Recipe, "losses", poisoned)
    return guilty


@pytest.mark.slow
def test_a_skipped_step_moves_neither_weights_nor_moments_and_is_shown(
    options: Callable[..., TrainOptions],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    guilty = poison(monkeypatch, {1})
    seen, original = [], Training.step

    def spy(self: Training, *args: object) -> None:
        original(self, *args)
        weights = [each.detach().clone() for each in self.network.detector.state_dict().values()]
        moments = [each["exp_avg"].clone() for each in self.descent.optimizer.state.values()]
        seen.append(
            (weights, moments, [float(s["step"]) for s in self.descent.optimizer.state.values()])
        )

    monkeypatch.setattr(Training, "step", spy)
    run = fit(options(epochs=1, recipe="baseline"))
    for one, other in zip(seen[0], seen[1], strict=True):
        assert all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for a, b in zip(one, other, strict=True)
        )
    assert not torch.equal(seen[1][1][0], seen[2][1][0])
    assert run.rows[0]["train/skipped"] == 1
    assert run.rows[0]["step"] == 3
    assert str(list(guilty[0])) in capsys.readouterr().out
    saved = load_checkpoint(RunFiles(run.directory)).contents
    assert all_finite(each for each in saved["state_dict"].values() if torch.is_tensor(each))


@pytest.mark.slow
def test_a_run_whose_steps_stay_bad_stops_and_keeps_the_last_finite_checkpoint(
    options: Callable[..., TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(3, 100)))
    chosen = options(epochs=9, recipe="baseline", nonfinite_limit=3)
    with pytest.raises(NonFiniteError):
        fit(chosen)
    saved = load_checkpoint(RunFiles.of(chosen.output)).contents
    assert saved["run"]["epoch"] == 1
    assert saved["global_step"] == 3
