"""Where metrics go besides `metrics.csv`: TensorBoard, Weights & Biases or MLflow, by Lightning."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from od_detr.errors import InputError
from od_detr.files import make_directory, writing
from od_detr.run_files import RunFiles

PROJECT = "od-detr"
INSTALLED_BY = {
    "tensorboard": "pip install 'od-detr[tensorboard]'",
    "wandb": "pip install wandb",
    "mlflow": "pip install mlflow",
}


class MetricsLogger:
    """Hands metrics and pictures to one of Lightning's loggers, or to none.

    Args:
        name: csv (none), tensorboard, wandb or mlflow.
        files: the files of the run.
    """

    def __init__(self, name: str, files: RunFiles) -> None:
        self.name = name
        self._place = files.tensorboard if name == "tensorboard" else files.directory
        self._logger: Any = _made(name, files)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Records numbers of an optimizer step."""
        if self._logger is not None and metrics:
            with writing(self._place):
                self._logger.log_metrics(dict(metrics), step)

    def log_options(self, options: Mapping[str, Any]) -> None:
        """Records the options of the run; TensorBoard has no good place for them."""
        if self._logger is not None and self.name != "tensorboard":
            self._logger.log_hyperparams(dict(options))

    def log_picture(self, title: str, picture: Path, step: int) -> None:
        """Records a picture that was written to a file."""
        if self.name == "tensorboard":
            import numpy as np
            from PIL import Image

            pixels = np.array(Image.open(picture))
            self._logger.experiment.add_image(title, pixels, step, dataformats="HWC")
        elif self.name == "wandb":
            self._logger.log_image(title, [str(picture)], step)
        elif self.name == "mlflow":
            self._logger.experiment.log_artifact(self._logger.run_id, str(picture), title)

    def close(self, failed: bool = False) -> None:
        """Writes what is left, and whether the run failed."""
        if self._logger is not None:
            with writing(self._place):
                self._logger.finalize("failed" if failed else "success")
            self._logger = None
            self.name = "csv"


def chosen_logger(name: str) -> str:
    """The logger that `--logger` means: "auto" is tensorboard if it is installed, else csv.

    Raises:
        InputError: it is not installed.
    """
    if name == "auto":
        return "tensorboard" if _installed("tensorboard") else "csv"
    if name != "csv" and not _installed(name):
        raise InputError(f"--logger {name}: {name} is not installed; {INSTALLED_BY[name]}")
    return name


def _installed(name: str) -> bool:
    """Whether a package is there as Lightning asks for it: mlflow-skinny alone is not mlflow."""
    if importlib.util.find_spec(name) is None:
        return False
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _made(name: str, files: RunFiles) -> Any:
    """Lightning's logger; those of Fabric are enough for TensorBoard and are imported faster."""
    if name == "tensorboard":
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        return TensorBoardLogger(files.directory, name=files.tensorboard.name, version="")
    if name == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(
            name=files.directory.name, save_dir=files.directory, project=PROJECT, log_model=False
        )
    if name == "mlflow":
        from lightning.pytorch.loggers import MLFlowLogger

        server = os.environ.get("MLFLOW_TRACKING_URI")
        if server:
            return MLFlowLogger(PROJECT, run_name=files.directory.name, tracking_uri=server)
        folder = files.mlflow.absolute()
        with writing(folder):
            make_directory(folder)
        return MLFlowLogger(  # a data base, for MLflow 3 refuses plain files
            PROJECT,
            run_name=files.directory.name,
            tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
            artifact_location=folder.as_uri(),
        )
    return None
