"""A run that was stopped goes on as if it never had been."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from od_detr.errors import InputError, Interrupted
from od_detr.options import TrainOptions
from od_detr.structures import Batch, Share
from od_detr.training.fit import fit
from od_detr.training.module import Training
from od_detr.training.record.resume import read_checkpoint, write_checkpoint
from od_detr.training.record.state import SECONDS

Options = Callable[..., TrainOptions]
EPOCHS, STEPS = 5, 3  # the rate drops and the teacher stops after 4


def stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    """Ctrl-C while that batch is trained on."""
    original = Training.backward

    def interrupted(self: Training, samples: Batch, share: Share, last: bool) -> torch.Tensor:
        if (self.state.epoch, self.state.batch) == (epoch, batch):
            signal.raise_signal(signal.SIGINT)
        return original(self, samples, share, last)

    monkeypatch.setattr(Training, "backward", interrupted)


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
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrainOptions], Path]:
    """The uninterrupted run of these options, trained once."""
    runs: dict[int, Path] = {}

    def trained(options: TrainOptions) -> Path:
        if options.accumulate not in runs:
            folder = tmp_path_factory.mktemp("whole") / "run"
            values = {**vars(options), "output": str(folder), "workers": 0, "resume": False}
            runs[options.accumulate] = fit(TrainOptions(**values)).directory
        return runs[options.accumulate]

    return trained


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epoch", "batch", "workers", "accumulate"),
    [
        pytest.param(2, 2, 2, 1, id="after epoch 3, 2 workers"),
        pytest.param(2, 1, 2, 1, id="inside epoch 3, 2 workers"),
        pytest.param(3, 2, 0, 1, id="before Stop Update"),
        pytest.param(4, 0, 0, 1, id="after Stop Update, inside the last epoch"),
        pytest.param(1, 0, 0, 2, id="asked to inside an accumulated step"),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    epoch: int, batch: int, workers: int, accumulate: int, options: Options, whole: Callable[[TrainOptions], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make = partial(options, epochs=EPOCHS, workers=workers, accumulate=accumulate, dropout=0.1)
    expected = whole(make())
    with monkeypatch.context() as patch:
        stop_at(patch, epoch, batch)
        with pytest.raises(Interrupted):
            fit(make())
    run = Path(make().output)
    steps = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    per_epoch = -(-STEPS // accumulate)
    assert steps == epoch * per_epoch + (batch // accumulate + 1)
    spent = read_checkpoint(run / "last.ckpt")["run"]["seconds"]
    mine = {"mine.2024.part", "last.ckpt.mine.part", "1.part"}
    for half in ("last.ckpt.4711.part", "best/model.safetensors.4711.part", *mine):
        (run / half).parent.mkdir(exist_ok=True)
        (
            run / half
        ).touch()  # the first two as a process leaves them that is killed while it writes
    rows = fit(make(resume=True)).rows
    assert_same_run(run, expected)
    assert {partial.name for partial in run.rglob("*.part")} == mine
    seconds = [row[SECONDS] for row in rows]
    assert 0 < spent < seconds[-1] and seconds == sorted(seconds), (
        "the time before the stop counts too"
    )


@pytest.mark.slow
def test_ctrl_c_saves_says_so_and_exits_with_130(options: Options, tmp_path: Path) -> None:
    chosen = options(epochs=200)
    run = Path(chosen.output)
    flags = ["--hidden-dim", "32", "--encoder-layers", "1", "--decoder-layers", "1", "--queries", "12",
             "--feedforward", "32", "--num-levels", "3", "--image-size", "64", "--workers", "0", "--device", "cpu",
             "--backbone", "resnet18", "--backbone-weights", "none", "--batch-size", "4",
             "--backbone-options", '{"channels":[8,16,24,32],"layers":[1,1,1,1]}']  # fmt: skip
    command = [sys.executable, "-m", "od_detr", "train", "--data", chosen.data, "--output", chosen.output,
               "--epochs", "200", *flags]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (run / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "stopped; continue with --resume\n"
    saved = read_checkpoint(run / "last.ckpt")
    assert 0 < saved["global_step"] < 600 and saved["state_dict"]


SAVER = """
import sys, torch
from pathlib import Path
from od_detr.training.record.resume import write_checkpoint
number, rest = 0, {"optimizer": {}, "schedule": {}, "run": {}}
while True:
    weights = torch.full((500_000,), float(number))
    contents = {"state_dict": {"weights": weights}, "global_step": number}
    write_checkpoint(contents | rest, Path(sys.argv[1]))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_a_kill_while_saving_leaves_a_readable_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with subprocess.Popen(
        [sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            acknowledged = int(process.stdout.readline())
        for _ in range(
            5
        ):  # at whatever the writer is doing then: the process is frozen, and the file read
            time.sleep(0.013)
            process.send_signal(signal.SIGSTOP)
            saved = read_checkpoint(path)
            assert bool((saved["state_dict"]["weights"] == saved["global_step"]).all())
            assert saved["global_step"] >= acknowledged
            process.send_signal(signal.SIGCONT)
        process.kill()
    saved = read_checkpoint(path)
    assert bool((saved["state_dict"]["weights"] == saved["global_step"]).all())


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    contents = {key: {} for key in ("state_dict", "optimizer", "schedule", "run")}
    write_checkpoint(contents | {"global_step": 1}, path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"last.ckpt: .*No space left"):
        write_checkpoint(contents | {"global_step": 2}, path)
    assert read_checkpoint(path)["global_step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


class Trap:
    """Pickled code."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("content", ["missing", "empty", "cut", "code", "other"])
def test_a_checkpoint_that_is_none_is_refused_in_one_line(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    if content == "empty":
        path.touch()
    elif content == "cut":
        torch.save({"state_dict": {"a": torch.zeros(1000)}, "global_step": 0}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif content == "code":
        torch.save({"state_dict": Trap(), "global_step": 0}, path)
    elif content == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"last\.ckpt: ") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trapped").exists()
