"""What a run leaves on disk, epoch by epoch."""

from __future__ import annotations

import csv
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from od_detr.detectors import save_detector
from od_detr.detectors.saved import WEIGHTS
from od_detr.errors import Interrupted
from od_detr.files import atomic_write, clear_unfinished
from od_detr.training.module import ONLINE, TEACHER, Training

LAST, BEST, METRICS = "last.ckpt", "best", "metrics.csv"
SECONDS = "seconds"
STOPPED = "stopped; continue with --resume"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunDirectory(L.Callback):
    """Writes `metrics.csv`, `best/` and `last.ckpt` after each epoch, and `last.ckpt` at Ctrl-C.

    Args:
        directory: the run's directory.
        classes: class names.
        facts: what `best/config.json` says besides the architecture.
    """

    def __init__(self, directory: Path, classes: list[str], facts: dict[str, Any]) -> None:
        self.directory, self.classes, self.facts = directory, classes, facts
        self.best_ap = float("-inf")
        self.rows: list[dict[str, Any]] = []
        self.seconds, self.since = 0.0, 0.0
        self.stop_asked = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_ap": self.best_ap, "rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_ap, self.rows = state["best_ap"], list(state["rows"])
        self.seconds = state.get("seconds", 0.0)

    @contextmanager
    def hearing_signals(self) -> Iterator[None]:
        """Meanwhile Ctrl-C and SIGTERM ask the run to stop at the next step, with everything saved."""
        if (
            threading.current_thread() is not threading.main_thread()
        ):  # only there can signals be heard
            yield
            return
        before = {number: signal.signal(number, self._ask_to_stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGTERM, self._ask_to_stop
            )  # without Lightning's own handler, which saves nothing
        if trainer.is_global_zero:
            for large in (self.directory / LAST, self.directory / BEST / WEIGHTS):
                clear_unfinished(large)  # of a run that was killed before this one went on
        self.since = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.since = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._count_seconds()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.since = time.perf_counter()

    def _count_seconds(self) -> None:
        """Adds the time trained since the last call; validating and saving are not counted."""
        now = time.perf_counter()
        self.seconds, self.since = self.seconds + now - self.since, now

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop_asked:  # asked twice: at once, with what the last epoch saved
            raise Interrupted(
                STOPPED if (self.directory / LAST).exists() else "stopped; nothing was saved yet"
            )
        self.stop_asked = True

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if (
            whole_step and not trainer.is_last_batch and self._stopping(trainer)
        ):  # the last is validated first
            assert isinstance(pl_module, Training)
            pl_module.check_finite()
            self._count_seconds()
            trainer.save_checkpoint(self.directory / LAST)
            raise Interrupted(STOPPED)

    def _stopping(self, trainer: L.Trainer) -> bool:
        """Whether any rank was asked to stop, so that all do at the same step."""
        if trainer.world_size == 1:
            return self.stop_asked
        return trainer.strategy.reduce_boolean_decision(self.stop_asked, all=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        pl_module.close_epoch()
        self._count_seconds()
        epoch = trainer.current_epoch + 1
        figures = pl_module.figures
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append(
            {"epoch": epoch, "step": trainer.global_step, SECONDS: self.seconds, **figures}
        )
        if trainer.logger is not None:
            trainer.logger.log_metrics(figures, step=trainer.global_step)
        if trainer.is_global_zero:
            self._write_metrics()
        if "val/AP" in figures:
            self._keep_best(trainer, pl_module)
        trainer.save_checkpoint(self.directory / LAST)
        if self._stopping(trainer) and epoch < (trainer.max_epochs or 0):
            raise Interrupted(STOPPED)

    def _write_metrics(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with (
            atomic_write(self.directory / METRICS) as partial,
            partial.open("w", newline="") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def _keep_best(self, trainer: L.Trainer, module: Training) -> None:
        """Saves whichever of online and teacher has the highest AP so far."""
        winner = max(module.summaries, key=lambda name: module.summaries[name]["AP"])
        ap = module.summaries[winner]["AP"]
        if ap <= self.best_ap:
            return
        self.best_ap = ap
        if trainer.is_global_zero:
            detector = module.evaluated(winner)
            aps = {f"{name}_AP": summary["AP"] for name, summary in module.summaries.items()}
            epoch = trainer.current_epoch + 1
            save_detector(
                detector,
                self.directory / BEST,
                self.classes,
                weights=winner,
                AP=ap,
                epoch=epoch,
                **aps,
                **self.facts,
            )


class Progress(RichProgressBar):
    """A bar an epoch, counted from 1 as everywhere else."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}".ljust(
            len(self.validation_description)
        )


__all__ = [
    "BEST",
    "LAST",
    "METRICS",
    "ONLINE",
    "TEACHER",
    "Interrupted",
    "Progress",
    "RunDirectory",
]
