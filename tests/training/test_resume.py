"""A run that was stopped goes on as if it never had been."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from od_detr.checkpoints import load_checkpoint
from od_detr.errors import Interrupted
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.structures import Batch, Share
from od_detr.training.fit import fit
from od_detr.training.module import Training
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
    epoch: int,
    batch: int,
    workers: int,
    accumulate: int,
    options: Options,
    whole: Callable[[TrainOptions], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
    spent = load_checkpoint(RunFiles(run)).contents["run"]["seconds"]
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
    assert 0 < spent < seconds[-1], "the time before the stop counts too"
    assert seconds == sorted(seconds)


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
        sys.executable,
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
    saved = load_checkpoint(RunFiles(run)).contents
    assert 0 < saved["global_step"] < 600
    assert saved["state_dict"]
