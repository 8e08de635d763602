"""Laws of the loop over epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.host_reads import reads_counted

from od_detr.options import TrainOptions
from od_detr.training.fit import fit
from od_detr.training.loop import Loop
from od_detr.training.nonfinite.guard import FiniteGuard


@pytest.mark.slow
def test_logging_a_step_reads_nothing_from_the_device(
    options: Callable[..., TrainOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of every step costs no more reads than one of each epoch."""
    counted: list[int] = []
    train_epoch = Loop.train_epoch

    def watched(loop: Loop) -> None:
        with reads_counted("cpu") as reads:
            train_epoch(loop)
        counted.append(reads.count)

    monkeypatch.setattr(Loop, "train_epoch", watched)
    for every in (1, 1000):
        monkeypatch.setattr("od_detr.training.loop.STEPS", every)
        fit(options(output=str(tmp_path / str(every)), logger="csv"))
    assert counted[:2] == counted[2:]
    assert counted[0] > 0


@pytest.mark.slow
def test_processes_that_save_by_the_clock_save_each_step_once(
    options: Callable[..., TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They save one step after the wish, whose verdict then comes a second time."""
    saved: list[int] = []
    save, clock = Loop.save, iter(range(1000))

    def watched(loop: Loop) -> None:
        save(loop)
        saved.append(loop.state.step)

    monkeypatch.setattr(Loop, "save", watched)
    monkeypatch.setattr(Loop, "save_due", property(lambda _: not saved and next(clock) >= 2))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        fit(options(epochs=1, batch_size=1, logger="csv"))
    finally:
        torch.distributed.destroy_process_group()
    assert saved == [4, 12, 12]  # asked for in the third step; before and after validation


@pytest.mark.slow
def test_the_loss_that_is_shown_is_the_mean_of_the_batches(
    options: Callable[..., TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, settle = [], FiniteGuard.settle

    def spy(self: FiniteGuard, *arguments: object) -> str | None:
        judged = self._pending is not None
        line = settle(self, *arguments)
        shown.extend([self.last_loss] if judged else [])
        return line

    monkeypatch.setattr(FiniteGuard, "settle", spy)
    run = fit(options(epochs=1, batch_size=1, accumulate=4))
    assert len(shown) == 3
    assert np.mean(shown) == pytest.approx(run.rows[-1]["train/loss"], rel=1e-5)
