"""A file that cannot be written stops a run in one line, and what was saved before is whole."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from od_detr.checkpoints import load_checkpoint
from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.fit import fit
from od_detr.training.module import Training

Options = Callable[..., TrainOptions]
STEPS = 3


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, turn: int, number: int) -> None:
    """Flushing the file of this name fails at this turn, counted from 0, and ever after."""
    flush, turns = os.fsync, []

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        turns.extend([path] if Path(path).name.startswith(f"{name}.") else [])
        if len(turns) > turn:
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("name", "turn", "epoch"),
    [
        ("config.yaml", 0, None),
        ("last.ckpt", 0, None),
        ("model.safetensors", 0, 1),
        ("config.json", 0, 1),
        ("metrics.csv", 0, 1),
        ("last.ckpt", 2, 1),
    ],
)
def test_a_full_disk_stops_the_run_in_one_line_and_leaves_what_was_saved(
    name: str, turn: int, epoch: int | None, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(epochs=2, recipe="baseline")
    files = RunFiles(Path(chosen.output))
    with monkeypatch.context() as patch:
        refuse(patch, name, turn, errno.ENOSPC)
        with pytest.raises(InputError) as caught:
            fit(chosen)
    said = str(caught.value)
    assert name in said
    assert os.strerror(errno.ENOSPC) in said
    assert "\n" not in said
    assert list(files.directory.rglob("*.part")) == []
    if epoch is not None:
        assert load_checkpoint(files).contents["run"]["epoch"] == epoch
    finished = fit(options(epochs=2, recipe="baseline", resume=epoch is not None))
    assert [row["step"] for row in finished.rows] == [STEPS, 2 * STEPS]


@pytest.mark.slow
def test_a_vanished_output_stops_the_run_in_one_line(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, original = options(epochs=1, recipe="baseline"), Training.step

    def step(self: Training, *arguments: object) -> None:
        shutil.rmtree(chosen.output, ignore_errors=True)
        original(self, *arguments)

    monkeypatch.setattr(Training, "step", step)
    with pytest.raises(InputError, match=r"last\.ckpt: .*No such file"):
        fit(chosen)


def test_an_output_that_may_not_be_written_is_refused_before_training(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError, match=r"run: .*Read-only"):
        fit(options())


@pytest.mark.slow
def test_a_killed_data_worker_is_reported_in_one_line_and_the_last_save_stands(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, original = options(epochs=3, workers=1, recipe="baseline"), Training.step
    others = children()

    def step(self: Training, *arguments: object) -> None:
        original(self, *arguments)
        if self.state.epoch == 1:
            for worker in children() - others:
                os.kill(worker, signal.SIGKILL)

    monkeypatch.setattr(Training, "step", step)
    with pytest.raises(InputError, match=r"worker.*--workers") as caught:
        fit(chosen)
    assert "\n" not in str(caught.value)
    assert children() == others
    assert load_checkpoint(RunFiles(Path(chosen.output))).contents["run"]["epoch"] == 1


def children() -> set[int]:
    """Processes that this one has started and that are not over."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(child) for each in lists for child in each.read_text().split()}
