"""A run that was stopped goes on as if it never had been."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.forked import start
from tests.training.backbone import backbone_file

from od_detr.checkpoints import load_checkpoint
from od_detr.errors import InputError, Interrupted
from od_detr.options import OptimizerOptions, TrainOptions
from od_detr.run_files import RunFiles
from od_detr.structures import Batch, Share
from od_detr.training.fit import fit
from od_detr.training.loop import Loop
from od_detr.training.module import Training
from od_detr.training.nonfinite.guard import FiniteGuard
from od_detr.training.plan import planned
from od_detr.training.record.state import SECONDS

Options = Callable[..., TrainOptions]
TOLERANCE = 1e-3  # of a loss term, where two processes go on with what one began
EPOCHS = 2  # of three steps; the rate drops and the teacher stops after the first


@dataclass(frozen=True)
class Stop:
    """Where a run is stopped, and what of it the checkpoint must hold then.

    Attributes:
        epoch: whole epochs before.
        batch: batch of the next epoch during which the signal comes; None: in its validation.
        step: optimizer steps that are saved.
        accumulate: batches a step.
        skipped: step whose gradient is not finite, if there is one.
    """

    epoch: int
    batch: int | None
    step: int
    accumulate: int = 1
    skipped: int = 0


STOPS = {
    "in mid-epoch": Stop(0, 1, 2),
    "in accumulation": Stop(0, 0, 1, accumulate=2),
    "in validation": Stop(0, None, 3),
    "before Stop Update": Stop(0, 2, 3),
    "after Stop Update": Stop(1, 0, 4),
    "after a skipped step": Stop(0, 1, 2, skipped=2),
}


def spoil_gradient(monkeypatch: pytest.MonkeyPatch, skipped: int) -> None:
    """The norm of this step's gradient is infinite."""
    original = FiniteGuard.judge

    def judge(
        self: FiniteGuard, loss: torch.Tensor, norm: torch.Tensor, images: tuple[int, ...],
        step: int, *asked: bool,
    ) -> torch.Tensor:  # fmt: skip
        return original(
            self, loss, norm * float("inf") if step == skipped else norm, images, step, *asked
        )

    monkeypatch.setattr(FiniteGuard, "judge", judge)


def stop_at(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    """Ctrl-C while that batch is trained on, or when that validation begins."""
    train, validate = Training.backward, Loop.validate

    def trained(self: Training, samples: Batch, share: Share, last: bool) -> torch.Tensor:
        if (self.state.epoch, self.state.batch) == (stop.epoch, stop.batch):
            signal.raise_signal(signal.SIGINT)
        return train(self, samples, share, last)

    def validated(self: Loop) -> None:
        if stop.batch is None and self.state.epoch == stop.epoch + 1:
            signal.raise_signal(signal.SIGINT)
        validate(self)

    monkeypatch.setattr(Training, "backward", trained)
    monkeypatch.setattr(Loop, "validate", validated)


def timeless_rows(run: Path) -> list[dict[str, str]]:
    """What metrics.csv says, without the time it took."""
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {name: text for name, text in row.items() if name != SECONDS}
            for row in csv.DictReader(file)
        ]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights of student and teacher, moments of the optimiser, and every figure of every epoch."""
    assert timeless_rows(one) == timeless_rows(other)
    first, second = (torch.load(run / "last.ckpt", weights_only=True) for run in (one, other))
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, value in first["state_dict"].items():
        same = torch.equal(value, second["state_dict"][name]) if torch.is_tensor(value) else (
            value == second["state_dict"][name])  # fmt: skip
        assert same, name
    moments = [checkpoint["optimizer"]["state"] for checkpoint in (first, second)]
    assert all(
        torch.equal(moments[0][key]["exp_avg_sq"], moments[1][key]["exp_avg_sq"])
        for key in moments[0]
    )
    assert first["global_step"] == second["global_step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrainOptions, int], Path]:
    """The uninterrupted run of these options with that step skipped, trained once."""
    runs: dict[tuple[int, int], Path] = {}

    def trained(options: TrainOptions, skipped: int) -> Path:
        key = options.accumulate, skipped
        if key not in runs:
            folder = tmp_path_factory.mktemp("whole") / "run"
            values = {**vars(options), "output": str(folder), "workers": 0, "resume": False}
            runs[key] = fit(TrainOptions(**values)).directory
        return runs[key]

    return trained


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", STOPS)
def test_a_stopped_run_goes_on_bit_for_bit(
    name: str,
    workers: int,
    options: Options,
    whole: Callable[[TrainOptions, int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = STOPS[name]
    make = partial(
        options,
        epochs=EPOCHS,
        workers=workers,
        accumulate=stop.accumulate,
        dropout=0.1,
        opt=OptimizerOptions(drop=1),
    )
    spoil_gradient(monkeypatch, stop.skipped)
    expected = whole(make(), stop.skipped)
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        with pytest.raises(Interrupted):
            fit(make())
    run = Path(make().output)
    saved = load_checkpoint(RunFiles(run)).contents
    assert saved["global_step"] == stop.step
    assert saved["run"]["validation_due"] or stop.batch is not None
    spent = saved["run"]["seconds"]
    mine = {"mine.2024.part", "last.ckpt.mine.part", "1.part"}
    for half in ("last.ckpt.4711.part", "best/model.safetensors.4711.part", *mine):
        (run / half).parent.mkdir(exist_ok=True)
        # The first two are as a process leaves them that is killed while it writes.
        (run / half).touch()
    rows = fit(make(resume=True)).rows
    assert_same_run(run, expected)
    assert {partial.name for partial in run.rglob("*.part")} == mine
    seconds = [row[SECONDS] for row in rows]
    assert 0 < spent < seconds[-1], "the time before the stop counts too"
    assert seconds == sorted(seconds)


@pytest.mark.slow
def test_a_stopped_run_with_chosen_images_goes_on_bit_for_bit(
    options: Options, sparse_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"data": str(sparse_scenes), "balance": 0.9, "background_fraction": 0.3}
    make = partial(options, epochs=EPOCHS, dropout=0.1, **chosen)
    expected = fit(make(output=str(tmp_path / "whole"))).directory
    with monkeypatch.context() as patch:
        stop_at(patch, Stop(1, 0, 0))
        with pytest.raises(Interrupted):
            fit(make())
    assert load_checkpoint(RunFiles(Path(make().output))).contents["run"]["batch"] > 0
    fit(make(resume=True))
    assert_same_run(Path(make().output), expected)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes share each step's images. Live norms and padding would depend on the share."""
    alike = {"backbone_weights": str(backbone_file(tmp_path)), "augment": "none"}
    make = partial(options, epochs=2, recipe="od", dropout=0.0, **alike)
    expected = fit(make(output=str(tmp_path / "whole"))).rows
    with monkeypatch.context() as patch:
        stop_at(patch, Stop(1, 0, 4))
        with pytest.raises(Interrupted):
            fit(make())
    run = Path(make().output)
    command = ["train", "--config", str(run / "config.yaml"), "--output", str(run), "--resume"]
    shared = ["--devices", "2", "--batch-size", "2"]
    status, _, errors = start(["-m", "od_detr", *command, *shared], os.environ).ended(300)
    assert status == 0, errors[-2000:]
    first, second = timeless_rows(run)
    for name in (name for name in second if name.startswith("train/")):
        assert float(first[name]) == pytest.approx(expected[0][name], rel=1e-9)
        assert float(second[name]) == pytest.approx(expected[1][name], rel=TOLERANCE), name


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_images_a_step(options: Options) -> None:
    fit(options(epochs=1, recipe="baseline"))
    for changes in ({"batch_size": 2}, {"accumulate": 2}):
        with pytest.raises(InputError, match=r"batch-size|accumulate"):
            planned(options(epochs=2, recipe="baseline", resume=True, **changes))
    planned(options(epochs=2, recipe="baseline", resume=True, batch_size=2, accumulate=2))


@pytest.mark.slow
def test_ctrl_c_saves_says_so_and_exits_with_130(options: Options, tmp_path: Path) -> None:
    chosen = options(epochs=200)
    run = Path(chosen.output)
    flags = [
        "--hidden-dim",
        "32",
        "--encoder-layers",
        "1",
        "--decoder-layers",
        "1",
        "--queries",
        "12",
        "--feedforward",
        "32",
        "--num-levels",
        "3",
        "--image-size",
        "64",
        "--workers",
        "0",
        "--device",
        "cpu",
        "--backbone",
        "resnet18",
        "--backbone-weights",
        "none",
        "--batch-size",
        "4",
        "--backbone-options",
        '{"channels":[8,16,24,32],"layers":[1,1,1,1]}',
    ]
    command = [
        "-m",
        "od_detr",
        "train",
        "--data",
        chosen.data,
        "--output",
        chosen.output,
        "--epochs",
        "200",
        *flags,
    ]
    training = start(command, os.environ)
    deadline = time.monotonic() + 120
    while not (run / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    training.interrupt()
    status, _, told = training.ended(60)
    assert status == 130
    assert told == f"stopped; continue with --resume --output {run}\n"
    saved = load_checkpoint(RunFiles(run)).contents
    assert 0 < saved["global_step"] < 600
    assert saved["state_dict"]
