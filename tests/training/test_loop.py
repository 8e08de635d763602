"""Laws of the loop over epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.host_reads import reads_counted

from od_detr.options import TrainOptions
from od_detr.training.fit import fit
from od_detr.training.loop import Loop


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
