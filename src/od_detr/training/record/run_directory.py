"""Writes a run's directory: `metrics.csv`, `best/`, `last.ckpt` and the event files."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from od_detr.checkpoints import Checkpoint, restore_last, save_checkpoint
from od_detr.detectors import DetectionTransformer, save_detector
from od_detr.files import atomic_write, clear_unfinished, writing
from od_detr.run_files import RunFiles

WITHOUT_TENSORBOARD = "for TensorBoard too, pip install 'od-detr[tensorboard]'"


class RunDirectory:
    """The files of a run, written by the first process only.

    Args:
        files: their names.
        classes: class names in order of label.
        facts: what `best/config.json` says besides the architecture.
        writes: whether this process writes; the others do nothing.
    """

    def __init__(
        self, files: RunFiles, classes: Sequence[str], facts: Mapping[str, Any], writes: bool = True
    ) -> None:
        self.files, self.classes, self.facts, self.writes = files, list(classes), facts, writes
        self._events: Any = None

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
        """Writes `metrics.csv` and adds the last row to the event files."""
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
        with writing(self.files.tensorboard):
            for name, value in rows[-1].items():
                if "/" in name and self.events is not None:
                    self.events.add_scalar(name, value, rows[-1]["step"])

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
        """Saves everything needed to resume."""
        if self.writes:
            save_checkpoint(contents, self.files)

    @property
    def events(self) -> Any:
        """TensorBoard's writer; None where TensorBoard is not installed."""
        if self._events is None and _has_tensorboard():
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.files.tensorboard))
        return self._events

    def __enter__(self) -> RunDirectory:
        """Says once where the metrics go if TensorBoard is not installed."""
        if self.writes and not _has_tensorboard():
            print(f"metrics: {self.files.metrics} only; {WITHOUT_TENSORBOARD}", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Flushes the event files."""
        if self._events is not None:
            with writing(self.files.tensorboard):
                self._events.close()
            self._events = None


def _has_tensorboard() -> bool:
    return importlib.util.find_spec("tensorboard") is not None
