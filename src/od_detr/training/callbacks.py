"""What a run leaves on disk, epoch by epoch."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L

from od_detr.detectors import save_detector
from od_detr.training.module import ONLINE, TEACHER, Training

LAST, BEST, METRICS = "last.ckpt", "best", "metrics.csv"


class Interrupted(Exception):
    """The user stopped the run; everything is saved."""


class RunDirectory(L.Callback):
    """Writes `metrics.csv`, `best/` and `last.ckpt` after each epoch, and `last.ckpt` at Ctrl-C.

    Args:
        directory: the run's directory.
        classes: class names.
        facts: what `best/config.json` says besides the architecture.
    """

    def __init__(self, directory: Path, classes: list[str], facts: dict[str, Any]) -> None:
        self.directory, self.classes, self.facts = directory, classes, facts
        self.best_ap = -1.0
        self.rows: list[dict[str, Any]] = []
        self.stop_asked = False
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best_ap": self.best_ap, "rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_ap, self.rows = state["best_ap"], list(state["rows"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._ask_to_stop)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop_asked:  # asked twice: at once, with what the last epoch saved
            raise Interrupted
        self.stop_asked = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.stop_asked and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            trainer.save_checkpoint(self.directory / LAST)
            raise Interrupted

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        pl_module.on_train_epoch_end()
        epoch = trainer.current_epoch + 1
        figures = pl_module.figures
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append({"epoch": epoch, "step": trainer.global_step, **figures})
        if trainer.logger is not None:
            trainer.logger.log_metrics(figures, step=trainer.global_step)
        if trainer.is_global_zero:
            self._write_metrics()
        if "val/AP" in figures:
            self._keep_best(trainer, pl_module)
        trainer.save_checkpoint(self.directory / LAST)

    def _write_metrics(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        partial = self.directory / (METRICS + ".part")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.directory / METRICS)

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
                detector, self.directory / BEST, self.classes, weights=winner, AP=ap, epoch=epoch, **aps, **self.facts
            )


__all__ = ["BEST", "LAST", "METRICS", "ONLINE", "TEACHER", "Interrupted", "RunDirectory"]
