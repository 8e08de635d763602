"""The names of a run's files. Other modules take them from here; only help texts spell them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = "model.safetensors"
DETECTOR_CONFIG = "config.json"
CONFIG_HEAD = (
    "# Written by od-detr train; "
    "`od-detr train --config THIS --output ELSEWHERE` repeats the run.\n"
)


@dataclass(frozen=True)
class RunFiles:
    """Paths of the files in a run's directory. Nothing is read or created.

    Args:
        directory: The run's directory, the `--output` of `od-detr train`.
    """

    directory: Path

    @classmethod
    def of(cls, path: str | Path) -> RunFiles:
        """The files of the run at `path`, which is the run's directory or its `best` folder."""
        path = Path(path)
        return cls(path.parent if path.name == "best" and is_saved_detector(path) else path)

    @property
    def last(self) -> Path:
        """Everything that is needed to resume the run."""
        return self.directory / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The `last.ckpt` before the last one, which is used where that is damaged."""
        return self.directory / "previous.ckpt"

    @property
    def best(self) -> Path:
        """Folder of the saved detector with the highest validation AP."""
        return self.directory / "best"

    @property
    def best_weights(self) -> Path:
        """Weights of the best detector."""
        return self.best / WEIGHTS

    @property
    def best_config(self) -> Path:
        """Architecture, class names and AP of the best detector."""
        return self.best / DETECTOR_CONFIG

    @property
    def config(self) -> Path:
        """Every option of the run, resolved."""
        return self.directory / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One row per epoch."""
        return self.directory / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        """Folder of event files."""
        return self.directory / "tensorboard"

    @property
    def samples(self) -> Path:
        """Folder of pictures that show objects and detections, one for each validation."""
        return self.directory / "samples"

    @property
    def mlflow(self) -> Path:
        """Folder of MLflow's records and pictures, unless it has a server."""
        return self.directory / "mlflow"

    @property
    def dump(self) -> Path:
        """The step that made a training stop on values that are not finite."""
        return self.directory / "nonfinite.json"

    @property
    def done(self) -> Path:
        """Result of a finished run of `od-detr reproduce`."""
        return self.directory / "done.json"

    @property
    def log(self) -> Path:
        """What a run of `od-detr reproduce --jobs` printed."""
        return self.directory / "train.log"

    @property
    def lock(self) -> Path:
        """Locked while a process of `od-detr reproduce` plans and trains the run."""
        return self.directory / "train.lock"

    @property
    def run_lock(self) -> Path:
        """Locked while a process trains the run."""
        return self.directory / "run.lock"

    @property
    def written(self) -> tuple[Path, ...]:
        """Every file that training writes whole or not at all."""
        saved = (self.last, self.previous, self.best_weights, self.best_config, self.dump)
        return (self.config, self.metrics, *saved)

    @property
    def is_saved(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.last.exists() or self.previous.exists()

    @property
    def is_begun(self) -> bool:
        """Whether a run was begun here, perhaps killed before it wrote anything but its lock."""
        return self.is_run or (self.run_lock.exists() and not self.config.exists())

    @property
    def is_run(self) -> bool:
        """Whether `od-detr train` started a run here: its `config.yaml` is in the directory."""
        try:
            with self.config.open(encoding="utf-8", errors="replace") as file:
                return file.readline() == CONFIG_HEAD
        except OSError:
            return False


def is_saved_detector(directory: Path) -> bool:
    """Whether the directory holds the weights and the configuration of a detector."""
    return (directory / WEIGHTS).is_file() and (directory / DETECTOR_CONFIG).is_file()


def kept_name(path: str | Path) -> str:
    """The name that a file or folder keeps where it moves, also of the current folder. Every run
    has a `best`, so that of `a/best` is `a`.
    """
    path = Path(os.path.abspath(path))
    return path.parent.name if path == RunFiles(path.parent).best else path.name


def saved_detector(path: str | Path) -> Path:
    """The folder of a saved detector: `path` itself, or `best` in it where `path` is a run."""
    best = RunFiles(Path(path)).best
    return best if best.is_dir() else Path(path)
