"""The training loop's view of a run: a student, a recipe, a teacher that follows."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from od_detr.detectors import DetectionTransformer
from od_detr.evaluation.scoring import Scorer
from od_detr.evaluation.stability import MatchingRecord
from od_detr.objectives import total
from od_detr.options import TrainOptions
from od_detr.structures import Batch
from od_detr.training.optimizer import make_optimizer, make_schedule
from od_detr.training.recipe import Recipe
from od_detr.training.teacher import Teacher
from od_detr.transfers import HostCopy

ONLINE, TEACHER = "online", "teacher"


class Training(L.LightningModule):
    """Trains `detector` by `recipe`; `teacher` follows it, whether it is consulted or only watched.

    `scorers` score the online detector and, if there is a teacher, its average on the validation set. After
    each validation `figures` holds the columns of `metrics.csv` and `summaries` the full figures of both.
    """

    def __init__(
        self,
        detector: DetectionTransformer,
        recipe: Recipe,
        teacher: Teacher | None,
        options: TrainOptions,
        scorers: dict[str, Scorer],
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self.detector, self.teacher = detector, teacher
        self.recipe, self.options, self.scorers = recipe, options, scorers
        self.steps_per_epoch = steps_per_epoch
        self.figures: dict[str, float] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.records: dict[str, MatchingRecord] = {}
        self.term_sums: dict[str, Tensor] = {}
        self.batches_seen = 0
        self._doubtful: tuple[HostCopy, HostCopy, tuple[int, ...]] | None = None

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        fused = self.options.precision != "fp16"
        optimizer = make_optimizer(
            self.detector, self.options.opt, self.options.architecture, fused
        )
        schedule = make_schedule(
            optimizer, self.steps_per_epoch, self.options.drop_epoch, self.options.opt.warmup
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        return batch.to(device)

    def on_train_epoch_start(self) -> None:
        self.term_sums.clear()
        self.figures.clear()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Each step's randomness depends on nothing before it: a resumed run draws what an uninterrupted one draws.
        torch.manual_seed(
            hash((self.options.seed, self.current_epoch, batch_idx, self.global_rank)) % 2**63
        )
        self.recipe.distil = self.global_step >= self.options.distill.start
        if (
            self.teacher
            and self.options.stops_update
            and self.current_epoch >= self.options.drop_epoch
        ):
            self.teacher.stop()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        terms = self.recipe.losses(self.detector, batch)
        loss = total(terms)
        self._watch(loss, batch.image_ids)
        for name, value in {"loss": loss, **terms}.items():
            self.term_sums[name] = self.term_sums.get(name, 0) + value.detach()
        self.batches_seen = batch_idx + 1
        self.log("loss", loss.detach(), prog_bar=True, logger=False)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if (
            gradient_clip_val
        ):  # Lightning's own refuses fused optimisers even where no gradient is scaled
            torch.nn.utils.clip_grad_norm_(self.detector.parameters(), gradient_clip_val)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.teacher is not None:
            self.teacher.update(self.detector)

    def evaluated(self, name: str) -> DetectionTransformer:
        """The detector of that name as it is worth evaluating."""
        return self.detector if name == ONLINE or self.teacher is None else self.teacher.evaluated

    def _watch(self, loss: Tensor, image_ids: tuple[int, ...]) -> None:
        """Notes a loss to look at one step later, when no one has to wait for it."""
        self.check_finite()
        own = loss.detach()
        everywhere = own.clone()
        if _distributed():
            torch.distributed.all_reduce(
                everywhere
            )  # or one rank would stop and leave the others waiting
        self._doubtful = (HostCopy(everywhere.isfinite()), HostCopy(own.isfinite()), image_ids)

    def check_finite(self) -> None:
        """Raises FloatingPointError if the last loss was not finite; before anything is saved, too."""
        doubtful, self._doubtful = self._doubtful, None
        if doubtful is None or bool(doubtful[0].wait()):
            return
        images = [] if bool(doubtful[1].wait()) else list(doubtful[2])
        images = [image for rank in _gathered(images) for image in rank]
        raise FloatingPointError(
            f"the loss is not finite at epoch {self.current_epoch + 1}, images {images}: lower "
            "--opt.lr, or use --precision 32 or bf16; last.ckpt is from before"
        )

    def close_epoch(self) -> None:
        """Adds the epoch's mean loss terms to `figures`; asked for by who writes them, once."""
        self.check_finite()
        means = {name: float(value) / self.batches_seen for name, value in self.term_sums.items()}
        ranks = _gathered(means)  # a rank that saw no object may lack some terms, which are 0 there
        names = dict.fromkeys(name for rank in ranks for name in rank)
        self.figures |= {
            f"train/{name}": sum(rank.get(name, 0.0) for rank in ranks) / len(ranks)
            for name in names
        }

    def on_validation_epoch_start(self) -> None:
        self.detector.eval()
        if _distributed():  # running statistics are each rank's own; those of rank 0 are saved
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, scorer in self.scorers.items():
            scorer.add(self.evaluated(name), batch)

    def on_validation_epoch_end(self) -> None:
        before, self.records = self.records, {}
        for name, scorer in self.scorers.items():
            self.summaries[name], self.records[name] = scorer.finish()
        summary = self.summaries[ONLINE]
        self.figures |= {
            f"val/{name}": summary[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")
        }
        self._stability(ONLINE, "", before)
        if TEACHER in self.summaries:
            self.figures["val/teacher/AP"] = self.summaries[TEACHER]["AP"]
            self._stability(TEACHER, "teacher_", before)
            self._by_layer("consistency", self.records[ONLINE].consistency(self.records[TEACHER]))
            self._by_layer("agreement", self.records[ONLINE].agreement(self.records[TEACHER]))

    def _stability(self, name: str, prefix: str, before: dict[str, MatchingRecord]) -> None:
        if name in before:
            self._by_layer(f"{prefix}instability", self.records[name].instability(before[name]))

    def _by_layer(self, name: str, values: list[float]) -> None:
        """The final layer's value is the metric; the others carry their layer's number."""
        self.figures[f"stability/{name}"] = values[-1]
        self.figures |= {
            f"stability/{name}/{layer}": value for layer, value in enumerate(values, 1)
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["records"] = {name: record.state_dict() for name, record in self.records.items()}
        checkpoint["batches_seen"], checkpoint["steps_per_epoch"] = (
            self.batches_seen,
            self.steps_per_epoch,
        )
        checkpoint["term_sums"] = dict(self.term_sums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches_seen, self.term_sums = (
            checkpoint["batches_seen"],
            dict(checkpoint["term_sums"]),
        )
        for name, state in checkpoint["records"].items():
            self.records[name] = MatchingRecord()
            self.records[name].load_state_dict(state)


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _gathered(value: Any) -> list[Any]:
    """The value of every rank."""
    if not _distributed():
        return [value]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, value)
    return parts
