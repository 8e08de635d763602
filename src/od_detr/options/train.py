"""The options of a training run, shared by the command line, `config.yaml` and Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.architectures import ARCHITECTURES, Architecture, ModelName
from od_detr.errors import InputError
from od_detr.options.data import DataOptions
from od_detr.options.fields import group, option
from od_detr.options.method import (
    AuxiliarySwitches,
    DenoisingOptions,
    DinoOptions,
    DistillOptions,
    EmaOptions,
    EncoderOptions,
    MatchingSwitches,
    MatchOptions,
    PredictionSwitches,
    PriorSwitches,
    QflOptions,
)
from od_detr.options.schedule import EvalOptions, OptimizerOptions
from od_detr.run_files import RunFiles

DEFAULT_MODEL: ModelName = "deformable-detr-plus"
DEFAULT_BACKBONE = "resnet50"
RecipeName = Literal["baseline", "qfl", "md", "md+pd", "md+ag", "od"]
# Epoch after which the originals reduce the learning rate, by length of the schedule.
DROPS = {12: 11, 24: 20, 36: 30, 50: 40}
DEFAULT_EPOCHS, DEFAULT_BATCH = 24, 2  # the paper's, the batch on each of 8 devices


@dataclass(frozen=True)
class TrainOptions(DataOptions):
    """Train a detector on a folder of labelled images."""

    model: ModelName | None = option(
        None,
        "Architecture.",
        everyday=True,
        resolved=True,
        shown=f"that of --init, or {DEFAULT_MODEL}",
        known_as=("arch", "architecture"),
    )
    output: str = option(
        "runs/train",
        "Folder for everything the run writes.",
        metavar="DIR",
        everyday=True,
        may_change_on_resume=True,
        is_path=True,
        known_as=("name", "project", "save_dir", "output_dir", "out"),
    )
    recipe: RecipeName = option(
        "od", "Training method. od is the full method, baseline the original.", everyday=True
    )
    resume: bool = option(
        False,
        "Continue the run in --output where it stopped, with the options it began with.",
        everyday=True,
        may_change_on_resume=True,
        per_run=True,
    )
    resume_with_other_data: bool = option(
        False,
        "Continue although the data changed since the run began.",
        may_change_on_resume=True,
        per_run=True,
    )
    init: str | None = option(
        None,
        "Start from a trained detector: a run, a folder, a checkpoint of other code, or "
        "hf:OWNER/NAME, such as hf:SenseTime/deformable-detr-with-box-refine (trained on COCO). "
        "Classes of the same name keep their weights.",
        metavar="FROM",
        everyday=True,
        is_path=True,
        shown="train a new detector",
        known_as=("weights", "pretrained", "checkpoint", "pretrain_weights"),
    )
    dry_run: bool = option(
        False,
        "Check data and options, print the cost of the run, and exit.",
        everyday=True,
        may_change_on_resume=True,
        per_run=True,
    )
    epochs: int | None = option(
        None,
        "Number of passes over the training images.",
        at_least=1,
        cap=10**6,
        everyday=True,
        resolved=True,
        may_change_on_resume=True,
        shown="24; more for few images",
        known_as=("epoch", "max_epochs", "num_epochs"),
    )
    budget: str | None = option(
        None,
        "Choose --epochs such that the run takes about this long: 2h, 90m or 3600s. Some steps are "
        "timed first.",
        metavar="TIME",
        everyday=True,
        per_run=True,
        shown="not set",
        known_as=("time", "max_time"),
    )
    patience: int | None = option(
        None,
        "Stop after this many validations without a higher AP. The rest of the schedule, including "
        "the learning-rate drop, is skipped.",
        at_least=1,
        everyday=True,
        may_change_on_resume=True,
        shown="train all epochs",
        known_as=("early_stopping", "early_stop", "early_stopping_patience"),
    )
    batch_size: int | None = option(
        DEFAULT_BATCH,
        "Images for each device and step. auto: what fits into memory, accumulated to 16 a step "
        "(fewer if there are fewer than 800 images).",
        at_least=1,
        cap=65_536,
        everyday=True,
        resolved=True,
        known_as=("batch", "bs", "batchsize"),
    )
    accumulate: int = option(
        1,
        "Number of batches whose gradients make one optimizer step, as one larger batch would.",
        at_least=1,
        cap=65_536,
        known_as=("grad_accum_steps", "accumulate_grad_batches", "nbs"),
    )
    backbone: str | None = option(
        None,
        "Backbone: a timm model that supports features_only.",
        everyday=True,
        resolved=True,
        shown=f"that of --init, or {DEFAULT_BACKBONE}",
    )
    backbone_weights: str = option(
        "imagenet",
        "Weights of the backbone: imagenet, none, or a safetensors file.",
        everyday=True,
        is_path=True,
    )
    freeze: Literal["backbone", "encoder"] | None = option(
        None,
        "Train only what comes after this part of a pretrained detector. encoder freezes backbone, "
        "neck and encoder.",
        everyday=True,
        shown="train everything",
        known_as=("freeze_backbone", "freeze_encoder", "frozen"),
    )
    backbone_options: dict[str, Any] = option(
        {}, "More arguments of the timm model, such as {channels: [32, 64]}.", shown="none"
    )
    hidden_dim: int | None = option(
        None,
        "Width of the transformer.",
        at_least=8,
        multiple_of=8,
        resolved=True,
        shown="256",
    )
    encoder_layers: int | None = option(
        None, "Number of encoder layers.", at_least=1, everyday=True, resolved=True, shown="6"
    )
    decoder_layers: int | None = option(
        None, "Number of decoder layers.", at_least=1, everyday=True, resolved=True, shown="6"
    )
    queries: int | None = option(
        None,
        "Number of object queries.",
        at_least=1,
        everyday=True,
        resolved=True,
        shown="300; DINO: 900",
        known_as=("num_queries",),
    )
    feedforward: int | None = option(
        None,
        "Hidden width of the feed-forward layers.",
        at_least=1,
        resolved=True,
        shown="1024; DAB and DINO: 2048",
    )
    num_levels: int | None = option(
        None,
        "Number of feature-map levels.",
        at_least=3,
        resolved=True,
        shown="4; dino-5scale: 5",
        formerly="levels",
    )
    dropout: float | None = option(
        None,
        "Dropout probability in the transformer.",
        at_least=0,
        at_most=1,
        resolved=True,
        shown="0.1; DAB and DINO: 0",
    )
    seed: int = option(
        0,
        "Seed for every random number generator.",
        at_least=0,
        at_most=2**32 - 1,
        everyday=True,
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto",
        "Device to train on. auto uses a GPU if there is one.",
        everyday=True,
        may_change_on_resume=True,
        known_as=("accelerator",),
    )
    devices: int | None = option(
        None,
        "Number of devices on each machine.",
        at_least=1,
        cap=1024,
        everyday=True,
        resolved=True,
        shown="1, or the launcher's number",
        known_as=("gpus", "num_gpus", "world_size"),
    )
    nodes: int | None = option(
        None,
        "Number of machines.",
        at_least=1,
        cap=65_536,
        resolved=True,
        shown="1, or the launcher's number",
        known_as=("num_nodes", "nnodes"),
    )
    precision: Literal["32", "bf16", "fp16"] = option(
        "32",
        "Precision of the network. Matching and losses are always float32.",
        everyday=True,
        may_change_on_resume=True,
        known_as=("amp", "half"),
    )
    matmul: Literal["high", "highest"] = option(
        "high",
        "How a GPU multiplies float32 matrices: high in TF32 where it can, highest in float32.",
        may_change_on_resume=True,
    )
    checkpoint_encoder: bool = option(
        False,
        "Compute the encoder's layers again in the backward pass. Needs less memory and more time.",
        may_change_on_resume=True,
    )
    compile: bool = option(
        False,
        "Compile the backbone with torch.compile. Only for GPUs; a CPU gains too little.",
        may_change_on_resume=True,
    )
    workers: int | None = option(
        None,
        "Number of processes that load images.",
        at_least=0,
        cap=1024,
        everyday=True,
        may_change_on_resume=True,
        shown="CPU cores minus 1",
        known_as=("num_workers",),
    )
    save_minutes: float = option(
        10.0,
        "Save inside an epoch too, whenever this many minutes have passed. 0 turns it off.",
        at_least=0,
        cap=10**6,
        may_change_on_resume=True,
        known_as=("save_period", "checkpoint_interval"),
    )
    logger: Literal["auto", "csv", "tensorboard", "wandb", "mlflow"] = option(
        "auto",
        "Where metrics go in addition to metrics.csv. auto is tensorboard if it is installed; csv "
        "is nowhere else.",
        may_change_on_resume=True,
        known_as=("loggers", "wandb", "mlflow", "tensorboard", "tracker"),
    )
    nonfinite_limit: int = option(
        10,
        "Stop after this many steps in a row whose loss or gradient is infinite or NaN.",
        at_least=1,
        cap=10**6,
        may_change_on_resume=True,
    )
    opt: OptimizerOptions = group(OptimizerOptions, "Optimizer (AdamW)")
    eval: EvalOptions = group(EvalOptions, "Validation during training", may_change_on_resume=True)
    match: MatchOptions = group(MatchOptions, "Hungarian matching")
    qfl: QflOptions = group(QflOptions, "Classification loss (Eq. 2), every recipe but baseline")
    ema: EmaOptions = group(EmaOptions, "Teacher, the moving average of the student (section 3.2)")
    distill: DistillOptions = group(DistillOptions, "Online distillation as a whole")
    md: MatchingSwitches = group(MatchingSwitches, "Matching distillation (section 3.2)")
    pd: PredictionSwitches = group(PredictionSwitches, "Prediction distillation (section 3.3)")
    query_prior: PriorSwitches = group(
        PriorSwitches, "Query-prior assignment (Table 5, last row)", formerly="qpad"
    )
    ag: AuxiliarySwitches = group(AuxiliarySwitches, "Auxiliary groups (section 3.4)")
    dino: DinoOptions = group(DinoOptions, "Two-stage architectures (DINO)")
    encoder: EncoderOptions = group(
        EncoderOptions, "Encoder predictions of two-stage architectures", formerly="enc"
    )
    denoising: DenoisingOptions = group(DenoisingOptions, "DINO's denoising group", formerly="dn")

    @property
    def architecture(self) -> Architecture:
        """The entry of `model` in the table of architectures."""
        return ARCHITECTURES[self.model or DEFAULT_MODEL]

    @property
    def backbone_name(self) -> str:
        """The backbone: the default one until `init` decides."""
        return DEFAULT_BACKBONE if self.backbone is None else self.backbone

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole schedule: the default ones until the data decide."""
        return DEFAULT_EPOCHS if self.epochs is None else self.epochs

    @property
    def device_batch(self) -> int:
        """Images of a batch on each device: the default ones until its memory decides."""
        return DEFAULT_BATCH if self.batch_size is None else self.batch_size

    @property
    def drop_epoch(self) -> int:
        """First epoch (counted from 0) with the reduced learning rate."""
        if self.opt.drop is not None:
            return self.opt.drop
        return DROPS.get(self.total_epochs, max(1, round(self.total_epochs * 5 / 6)))

    @property
    def drops(self) -> bool:
        """Whether the learning rate drops before the last epoch ends."""
        return self.drop_epoch < self.total_epochs

    @property
    def distils(self) -> bool:
        """Whether the recipe consults the teacher."""
        return self.recipe in ("md", "md+pd", "md+ag", "od")

    @property
    def has_teacher(self) -> bool:
        """Whether the run has a teacher: to learn from, or only to compare with (`ema.track`)."""
        return self.distils or self.ema.track

    def distils_at(self, step: int, steps_per_epoch: int) -> bool:
        """Whether the teacher is consulted at an optimizer step.

        Args:
            step: the step, counted from 0.
            steps_per_epoch: optimizer steps an epoch.
        """
        start, stop, every = self.distill.start, self.distill.stop, self.distill.every
        epochs = math.inf if stop is None else stop * self.total_epochs if stop < 1 else stop
        return start <= step < epochs * steps_per_epoch and (step - start) % every == 0

    @property
    def stops_update(self) -> bool:
        """Whether the teacher is frozen when the learning rate drops."""
        if self.ema.stop == "auto":
            return self.recipe in ("md+pd", "od")
        return self.ema.stop == "on"

    @staticmethod
    def continued(values: Mapping[str, Any]) -> Path | None:
        """The `config.yaml` whose options hold where `values` (by dotted name) give none.

        It is that of the run in `output`, if `values` ask to resume it.

        Raises:
            InputError: there is no run, and no data to begin one.
        """
        files = RunFiles(Path(str(values.get("output", TrainOptions.output))))
        if str(values.get("resume", False)).lower() != "true":
            return None
        if not files.is_run and "data" not in values:
            raise InputError(
                f"{files.directory}: holds no run to resume; give its folder with --output"
            )
        return files.config if files.is_run else None
