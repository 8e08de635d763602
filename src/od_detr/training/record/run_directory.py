"""Writes a run's directory: `metrics.csv`, `best/`, `last.ckpt` and the event files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from od_detr.checkpoints import Checkpoint, restore_last, save_checkpoint
from od_detr.detectors import DetectionTransformer, save_detector
from od_detr.files import atomic_write, clear_unfinished, writing
from od_detr.run_files import RunFiles
from od_detr.training.record.loggers import MetricsLogger, chosen_logger

WITHOUT_TENSORBOARD = "for TensorBoard too, pip install 'od-detr[tensorboard]'"


class RunDirectory:
    """The files of a run, written by the first process only.

    Args:
        files: their names.
        classes: class names in order of label.
        facts: what `best/config.json` says besides the architecture.
        writes: whether this process writes; the others do nothing.
        logger: where metrics go besides `metrics.csv`, as in `--logger`.
    """

    def __init__(
        self,
        files: RunFiles,
        classes: Sequence[str],
        facts: Mapping[str, Any],
        writes: bool = True,
        logger: str = "auto",
    ) -> None:
        self.files, self.classes, self.facts, self.writes = files, list(classes), facts, writes
        self._asked, self.logger = logger, MetricsLogger("csv", files)

    def tidy(self, resumed: Checkpoint | None) -> None:
        """Removes what killed processes left half written, and a damaged newest checkpoint.

        Call it with the run locked.

        Args:
            resumed: the checkpoint that the run continues from.
        """
        for file in self.files.written:
            clear_unfinished(file)
        if resumed is not None:
            with writing(self.files.last):
                restore_last(resumed, self.files)

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes `metrics.csv` and hands the last row to the logger."""
        if not self.writes or not rows:
            return
        names = list(dict.fromkeys(name for row in rows for name in row))
        with (
            writing(self.files.metrics),
            atomic_write(self.files.metrics) as partial,
            partial.open("w", newline="") as file,
        ):
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        measured = {name: value for name, value in rows[-1].items() if "/" in name}
        self.logger.log(measured, rows[-1]["step"])

    def write_samples(self, draw: Callable[[Path], None], epoch: int, step: int) -> None:
        """Has `draw` write the picture of a validation, and hands it to the logger."""
        picture = self.files.samples / f"epoch-{epoch:04}.png"
        with writing(picture):
            draw(picture)
        self.logger.log_picture("samples", picture, step)

    def write_best(
        self,
        detector: DetectionTransformer,
        name: str,
        epoch: int,
        summaries: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Saves the detector called `name` in `best/`; `summaries` are the metrics of all.

        Its threshold of the highest F1 is saved, too, if there is one.
        """
        if self.writes:
            best, threshold = summaries[name]["AP"], summaries[name]["best_threshold"]
            facts = {"weights": name, "AP": best, "epoch": epoch}
            facts |= {f"{each}_AP": summary["AP"] for each, summary in summaries.items()}
            facts |= {} if threshold is None else {"threshold": threshold}
            facts |= self.facts
            save_detector(detector, self.files.best, self.classes, **facts)

    def write_last(self, contents: Mapping[str, Any]) -> None:
        """Saves everything needed to resume.

        Raises:
            InputError: the run's directory vanished during training; without its `config.yaml` a
                checkpoint is of no use.
        """
        if self.writes:
            with writing(self.files.last):
                self.files.config.stat()
            save_checkpoint(contents, self.files)

    def __enter__(self) -> RunDirectory:
        """Opens the logger, and says once where the metrics go if TensorBoard is not installed."""
        if self.writes:
            self.logger = MetricsLogger(chosen_logger(self._asked), self.files)
            if self._asked == "auto" and self.logger.name == "csv":
                print(f"metrics: {self.files.metrics} only; {WITHOUT_TENSORBOARD}", flush=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes what the logger still holds."""
        self.logger.close(failed=kind is not None and issubclass(kind, Exception))
