"""A stand-in for training: it leaves a run's files, with metrics made up from its options."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from pathlib import Path
from zlib import crc32

import pytest

from od_detr.errors import Interrupted
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.fit import Run
from od_detr.training.record.run_config import write_config


@dataclass
class Trainings:
    """Directory names of the trained runs in order, and of the resumed ones."""

    started: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    options: dict[str, TrainOptions] = field(default_factory=dict)
    stop_at: str = ""
    stop_asked: bool = False

    def fit(self, options: TrainOptions) -> Run:
        directory = Path(options.output)
        directory.mkdir(parents=True, exist_ok=True)
        self.started.append(directory.name)
        self.options[directory.name] = options
        if options.resume:
            self.resumed.append(directory.name)
        resolved = replace(options, backbone=options.backbone_name)
        write_config(resolved, directory / "config.yaml")
        RunFiles(directory).last.touch()
        if directory.name == self.stop_at:
            self.stop_at = ""
            raise Interrupted("stopped")
        ap = self.ap(directory.name)
        rows = [
            {"epoch": epoch, "train/loss": 9 - epoch, **columns(ap, options.seed, epoch)}
            for epoch in (1, 2)
        ]
        with (directory / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return Run(
            directory, {"online": figures(ap), "teacher": figures(ap + 0.01)}, rows, self.stop_asked
        )

    @staticmethod
    def ap(name: str) -> float:
        """The AP of a run: 40, 42 and 47 % for seeds 0, 1, 2 of md-cls, another for other rows."""
        row, _, seed = name.rpartition("-seed")
        return (0.40, 0.42, 0.47)[int(seed)] + (crc32(row.encode()) - crc32(b"md-cls")) % 97 / 1000


def figures(ap: float) -> dict:
    return {"AP": ap, "AP50": ap + 0.2, "AP75": ap + 0.05, "per_class": {"cat": ap}}


def columns(ap: float, seed: int, epoch: int) -> dict[str, float]:
    """AP grows evenly to what it comes to, the teacher's is one above."""
    return {
        "val/AP": ap * epoch / 2,
        "val/teacher/AP": (ap + 0.01) * epoch / 2,
        "stability/instability": 3.0 / epoch + seed,
        "stability/teacher_instability": 1.0 / epoch,
        "stability/consistency": 0.5 * epoch - 0.1,
    }


@pytest.fixture
def trainings(monkeypatch) -> Trainings:
    made = Trainings()
    monkeypatch.setattr("od_detr.training.fit.fit", made.fit)
    return made
