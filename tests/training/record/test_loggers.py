"""Where metrics go besides `metrics.csv`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from od_detr.errors import InputError
from od_detr.options import EvalOptions, OptimizerOptions, TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.fit import fit
from od_detr.training.plan import planned
from od_detr.training.record.epoch_log import EpochLog
from od_detr.training.record.loggers import MetricsLogger, chosen_logger
from od_detr.training.record.step_log import StepLog


def add(log: EpochLog, *losses: float) -> None:
    for loss in losses:
        log.add({"loss": torch.tensor(loss), "half": torch.tensor(loss / 2)})


def test_a_step_record_is_the_mean_of_its_steps_and_complete_a_step_later() -> None:
    log = EpochLog()
    steps = StepLog(log, every=2)
    found = []
    for step, loss in enumerate((1.0, 3.0, 10.0, 20.0, 5.0), 1):
        add(log, loss)
        found.append(steps.stepped(step))
    assert found[0] is found[1] is found[3] is None
    assert found[2] == (2, {"step/loss": 2.0, "step/half": 1.0})
    assert found[4] == (4, {"step/loss": 15.0, "step/half": 7.5})


def test_a_new_epoch_starts_its_records_again() -> None:
    log = EpochLog()
    steps = StepLog(log, every=1)
    add(log, 7.0)
    assert steps.stepped(1) is None
    assert steps.ended() == (1, {"step/loss": 7.0, "step/half": 3.5})
    log.clear()
    add(log, 9.0)
    assert steps.stepped(2) is None
    assert steps.ended() == (2, {"step/loss": 9.0, "step/half": 4.5})


def test_a_resumed_epoch_does_not_count_what_came_before() -> None:
    log = EpochLog()
    add(log, 100.0)
    steps = StepLog(log, every=1)
    steps.resumed()
    add(log, 4.0)
    steps.stepped(2)
    assert steps.ended() == (2, {"step/loss": 4.0, "step/half": 2.0})


@pytest.mark.slow
def test_metrics_rates_steps_and_pictures_reach_tensorboard(
    options: Callable[..., TrainOptions],
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    chosen = options(
        epochs=2, logger="tensorboard", eval=EvalOptions(samples=2), opt=OptimizerOptions(drop=1)
    )
    run = fit(chosen)
    events = accumulator.EventAccumulator(str(RunFiles(run.directory).tensorboard))
    events.Reload()
    tags = events.Tags()
    assert {"val/AP", "val/AP/disc", "opt/lr", "ema/decay", "step/loss"} <= set(tags["scalars"])
    assert [each.step for each in events.Scalars("step/loss")] == [3, 6]
    epochs = [row["train/loss"] for row in run.rows]
    assert [each.value for each in events.Scalars("step/loss")] == pytest.approx(epochs, rel=1e-4)
    assert tags["images"] == ["samples"]
    pictures = sorted(RunFiles(run.directory).samples.iterdir())
    assert [picture.name for picture in pictures] == ["epoch-0001.png", "epoch-0002.png"]
    width, height = Image.open(pictures[0]).size
    assert width > 2 * 512
    assert height > 2 * 512
    assert run.rows[0]["opt/lr"] == pytest.approx(2e-4)
    assert run.rows[1]["opt/lr"] == pytest.approx(2e-5)


def test_modules_without_the_package_of_their_name_are_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As mlflow-skinny, which has a module `mlflow` that Lightning does not take."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("od_detr.training.record.loggers.version", none)
    with pytest.raises(InputError, match=r"^--logger mlflow: mlflow is not installed; pip install"):
        chosen_logger("mlflow")


def test_a_logger_that_is_not_installed_is_refused_before_anything_is_written(
    options: Callable[..., TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("od_detr.training.record.loggers._installed", lambda name: False)
    chosen = options(logger="wandb")
    with pytest.raises(InputError, match=r"--logger wandb.*pip install wandb"):
        planned(chosen)
    assert not Path(chosen.output).exists()
    assert chosen_logger("auto") == "csv"


class Recorder:
    """Stands for Lightning's logger of Weights & Biases, and keeps what it is given."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments, self.calls = arguments, []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: self.calls.append((name, *given))


@pytest.mark.parametrize("server", [None, "http://mlflow.example"])
def test_mlflow_records_in_the_run_unless_it_has_a_server(
    server: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("lightning.pytorch.loggers")
    module.MLFlowLogger = lambda project, **more: Recorder(project=project, **more)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "lightning.pytorch", ModuleType("lightning.pytorch"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch.loggers", module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    files = RunFiles(tmp_path / "run")
    arguments = MetricsLogger("mlflow", files)._logger.arguments
    assert arguments["tracking_uri"] == (server or f"sqlite:///{files.mlflow}/mlflow.db")
    assert files.mlflow.is_dir() == (server is None)


def test_weights_and_biases_gets_options_metrics_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("lightning.pytorch.loggers")
    module.WandbLogger = Recorder  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "lightning.pytorch", ModuleType("lightning.pytorch"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch.loggers", module)
    logger = MetricsLogger("wandb", RunFiles(tmp_path / "run"))
    recorder = logger._logger
    logger.log_options({"epochs": 3})
    logger.log({"val/AP": 0.5}, 7)
    logger.log_picture("samples", tmp_path / "a.png", 7)
    logger.close()
    logger.log({"val/AP": 0.6}, 8)
    assert recorder.arguments["name"] == "run"
    assert recorder.calls == [
        ("log_hyperparams", {"epochs": 3}),
        ("log_metrics", {"val/AP": 0.5}, 7),
        ("log_image", "samples", [str(tmp_path / "a.png")], 7),
        ("finalize", "success"),
    ]
