"""From options to a trained run directory."""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from od_detr.data.batching import BatchSampler, loader
from od_detr.data.dataset import CocoDataset
from od_detr.data.folders import choices_of
from od_detr.data.transforms import Transform
from od_detr.detectors import (
    DetectionTransformer,
    build_detector,
    check_compiles,
    compile_backbone,
    load_detector,
)
from od_detr.detectors.classes import transfer_classes
from od_detr.devices import (
    check_devices,
    choose_device,
    described_arithmetic,
    set_arithmetic,
)
from od_detr.dotted import flat, with_values
from od_detr.errors import InputError
from od_detr.evaluation.scoring import Scorer
from od_detr.options import SIZES, TrainOptions, check_limits, flag_name
from od_detr.ranks import Ranks, current, settled
from od_detr.training.callbacks import BEST, LAST, ONLINE, TEACHER, Progress, RunDirectory
from od_detr.training.checkpoint import (
    AtomicCheckpointIO,
    check_fits,
    plain,
    read_checkpoint,
    resume_options,
    write_config,
)
from od_detr.training.launch import Launched, Team, start
from od_detr.training.memory import memory_explained
from od_detr.training.module import Training
from od_detr.training.optimizer import default_backbone_lr
from od_detr.training.recipe import make_recipe
from od_detr.training.teacher import Teacher, scaled_decay

PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass
class Run:
    """A finished run: where it is, the last figures of online and teacher, and the rows of `metrics.csv`.

    `stop_asked` tells that the user asked to stop when there was nothing left to train.
    """

    directory: Path
    summaries: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    stop_asked: bool = False


def open_data(options: TrainOptions) -> tuple[CocoDataset, CocoDataset]:
    """Training and validation sets, checked; validation uses the training set's classes."""
    data = Path(options.data)
    augmented = Transform(options.image_size, augment=options.augment)
    choices = choices_of(options)
    train = CocoDataset.from_folder(data, "train", augmented, choices=choices, seed=options.seed)
    plain = Transform(options.image_size, augment="none")
    val = CocoDataset.from_folder(data, "val", plain, choices=choices, classes=train.classes)
    if _rank() == 0:
        print("\n".join([*train.described("train"), *val.described("val")]))
    return train, val


def open_detector(
    options: TrainOptions, train: CocoDataset, frozen: bool | None = None
) -> DetectionTransformer:
    """The detector for a data set: new with its backbone's weights, or as it was left (`init`)."""
    if options.init is None:
        detector = build_detector(
            options.model,
            len(train.classes),
            backbone=options.backbone,
            backbone_weights=options.backbone_weights,
            backbone_options=options.backbone_options or None,
            backbone_frozen=frozen,
            top_k=options.eval.topk,
            **{name: getattr(options, name) for name in SIZES},
        )
    else:
        detector = fine_tuned(options, train.classes)
    if train.most_targets > detector.num_queries:
        raise InputError(
            f"{options.data}: an image has {train.most_targets} objects, more than the {detector.num_queries} queries; "
            f"give --queries {train.most_targets} or more"
        )
    options.check_stages(detector.num_layers)
    detector.encoder.recompute = options.checkpoint_encoder
    return detector


def fine_tuned(options: TrainOptions, classes: Sequence[str]) -> DetectionTransformer:
    """The detector saved in `init`, for these classes: those that it knows keep their weights."""
    directory = Path(options.init or "")
    best = directory / BEST
    trained, config = load_detector(best if best.is_dir() else directory)
    model = trained.settings["model"]
    if model != options.model:
        raise InputError(
            f"--model {options.model}: {directory} holds a {model}; give --model {model}"
        )
    other = [
        name for name in SIZES if getattr(options, name) not in (None, trained.settings.get(name))
    ]
    if other:
        raise InputError(
            f"--{flag_name(other[0])}: {directory} has its own sizes; leave it out with --init"
        )
    if options.backbone not in (TrainOptions.backbone, trained.settings["backbone"]):
        raise InputError(
            f"--backbone {options.backbone}: {directory} has a {trained.settings['backbone']}; leave it out with --init"
        )
    if config.get("image_size", options.image_size) != options.image_size and _rank() == 0:
        print(
            f"{directory}: was trained at {config['image_size']} pixels, now --image-size is {options.image_size}"
        )
    if list(classes) == config["classes"]:
        return trained.train()
    detector, new = transfer_classes(trained, config["classes"], classes)
    if _rank() == 0:
        known = f"{len(classes) - len(new)} of {len(classes)} classes keep their weights"
        print(f"{directory}: {known}" + (f"; new are {', '.join(new)}" if new else ""))
    return detector


def fit(options: TrainOptions) -> Run:
    """Trains as the options say and returns what the run came to; see interface of a run's directory in the README.

    Raises:
        InputError: anything in the data, the options or a checkpoint to resume that the user can mend.
        FloatingPointError: the loss is no longer finite.
        Interrupted: after Ctrl-C, everything saved.
    """
    options, place = _settled(options)
    directory = Path(options.output)
    checkpoint = _open_run(options, directory)
    if checkpoint is not None:
        options = resume_options(options, directory / "config.yaml")
        if options.opt.drop is not None and _rank() == 0:
            print(
                f"{directory}: the learning rate falls after epoch {options.opt.drop}, as when the run began"
            )
    _quiet()
    _choose_arithmetic(options)
    L.seed_everything(options.seed, verbose=False)
    train, val = open_data(options)
    detector = open_detector(options, train)
    batches: dict[str, Any] = {"rank": place.rank, "world_size": place.world_size}
    sampler = BatchSampler(
        len(train), options.batch_size, seed=options.seed, drop_last=True, **batches
    )
    steps_per_epoch = -(-len(sampler) // options.accumulate)
    teacher = _teacher(detector, options, steps_per_epoch * options.epochs)
    recipe = make_recipe(options, detector, teacher)
    if options.compile:
        for each in (detector,) if teacher is None else (detector, teacher.detector):
            compile_backbone(each)
    names = [ONLINE] if teacher is None else [ONLINE, TEACHER]
    scorers = {
        name: Scorer(val.annotations, val.category_ids, recipe.cost, options.eval.topk)
        for name in names
    }
    module = Training(detector, recipe, teacher, options, scorers, steps_per_epoch)
    if checkpoint is not None:
        check_fits(checkpoint, module, directory / LAST)
        _check_pace(checkpoint, steps_per_epoch, directory / LAST)
        _resume_sampler(sampler, checkpoint)
    facts = {
        "category_ids": list(train.category_ids),
        "image_size": options.image_size,
        "recipe": options.recipe,
    }
    files = RunDirectory(directory, list(train.classes), facts)
    if _rank() == 0:
        write_config(resolved(options, detector, teacher), directory / "config.yaml")
    val_sampler = BatchSampler(len(val), options.batch_size, shuffle=False, **batches)
    workers = _spare_cores(place.devices) if options.workers is None else options.workers
    team = start(place)
    callbacks = [_Connection(team), files, _EpochOrder(sampler), Progress(leave=True)]
    trainer = _trainer(options, place, directory, callbacks)
    with files.hearing_signals(), team.reporting(), memory_explained(options):
        trainer.fit(
            module,
            loader(train, sampler, workers),
            loader(val, val_sampler, workers),
            ckpt_path=str(directory / LAST) if checkpoint is not None else None,
            weights_only=True,
        )
    return Run(directory, module.summaries, files.rows, files.stop_asked)


def _settled(options: TrainOptions) -> tuple[TrainOptions, Ranks]:
    """The options with numbers of devices and nodes, and the place of this process."""
    check_limits(options)
    place = settled(options.devices, options.nodes)
    return replace(options, devices=place.devices, nodes=place.nodes), place


def _open_run(options: TrainOptions, directory: Path) -> dict[str, Any] | None:
    """What to resume from, if anything; nothing is written before every check that can be made is made."""
    kind = check_devices(options)
    if options.compile:
        check_compiles(kind)
    if options.resume:
        return read_checkpoint(directory / LAST)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"--output {directory}: is a file; give a folder")
    if (directory / LAST).exists():
        raise InputError(
            f"{directory / LAST}: a run is there already; continue it with --resume, or give another --output"
        )
    if (directory / BEST).exists():
        raise InputError(
            f"{directory / BEST}: is there without a {LAST} to go on from; give another --output"
        )
    return None


def resolved(
    options: TrainOptions, detector: DetectionTransformer, teacher: Teacher | None
) -> TrainOptions:
    """The options with everything filled in that was left to the architecture, the schedule or a detector to start from."""
    architecture, settings = options.architecture, detector.settings
    values = {name: settings.get(name, settings.get(f"num_{name}")) for name in SIZES}
    if isinstance(settings["backbone"], str):
        values |= {name: settings[name] for name in ("backbone", "backbone_options")}
        values["backbone_options"] = dict(values["backbone_options"] or {})
    defaults = {
        "opt.lr": architecture.lr,
        "opt.backbone_lr": default_backbone_lr(detector),
        "opt.drop": options.drop_epoch,
        "ema.decay": None if teacher is None else teacher.decay,
        "qfl.class_weight": architecture.class_weight,
        "eval.topk": architecture.top_k,
    }
    chosen = flat(plain(dataclasses.asdict(options)))
    return with_values(
        options, values | {key: value for key, value in defaults.items() if chosen[key] is None}
    )


def _check_pace(checkpoint: dict[str, Any], steps_per_epoch: int, path: Path) -> None:
    """The schedule counts steps, so that an epoch must go on having as many."""
    before = checkpoint.get("steps_per_epoch", steps_per_epoch)
    if before != steps_per_epoch:
        raise InputError(
            f"{path}: an epoch had {before} steps and would now have {steps_per_epoch}; "
            "give the training images and the batch that the run began with"
        )


def _spare_cores(devices: int) -> int:
    """Cores of this process but one, shared with those of the other devices."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(0, cores // devices - 1)


class _EpochOrder(L.Callback):
    """Tells the sampler which epoch it is, and has the last one validated whatever the interval."""

    def __init__(self, sampler: BatchSampler) -> None:
        self.sampler = sampler

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validate_last(trainer)  # a run resumed inside an epoch does not start that epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.sampler.set_epoch(trainer.current_epoch)
        self._validate_last(trainer)

    def _validate_last(self, trainer: L.Trainer) -> None:
        if trainer.current_epoch == (trainer.max_epochs or 0) - 1:
            trainer.check_val_every_n_epoch = 1


def _teacher(detector: DetectionTransformer, options: TrainOptions, steps: int) -> Teacher | None:
    """The average of the student; a recipe that does not distil has one to be compared with, unless told not to."""
    if not (options.distils or options.ema.track):
        return None
    decay = scaled_decay(steps) if options.ema.decay is None else options.ema.decay
    return Teacher(detector, decay, options.ema.warmup, options.ema.warmup_steps)


class _Connection(L.Callback):
    """Opens the team's store as soon as the processes can communicate."""

    def __init__(self, team: Team) -> None:
        self.team = team

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.team.connect()


def _trainer(
    options: TrainOptions, place: Ranks, directory: Path, callbacks: list[L.Callback]
) -> L.Trainer:
    return L.Trainer(
        default_root_dir=directory,
        max_epochs=options.epochs,
        accelerator=options.device,
        devices=place.devices,
        num_nodes=place.nodes,
        strategy="ddp" if place.world_size > 1 else "auto",
        precision=PRECISIONS[options.precision],
        accumulate_grad_batches=options.accumulate,
        gradient_clip_val=options.opt.clip or None,
        check_val_every_n_epoch=options.eval.every,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=TensorBoardLogger(directory, name="tensorboard", version=""),
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), Launched(place)],
    )


def _choose_arithmetic(options: TrainOptions) -> None:
    """How float32 matrices are multiplied, said where there is a choice."""
    kind = choose_device(options.device).type
    set_arithmetic(options.matmul, kind)
    if kind == "cuda" and _rank() == 0:
        print(f"computing in {described_arithmetic(options.precision, options.matmul, kind)}")


def _resume_sampler(sampler: BatchSampler, checkpoint: dict[str, Any]) -> None:
    """Lets the data go on where it stopped: at the next epoch, or inside one."""
    seen = checkpoint["batches_seen"]
    whole = seen >= len(sampler)
    sampler.resume(checkpoint["epoch"] + int(whole), 0 if whole else seen)


def _rank() -> int:
    return current().rank


def _quiet() -> None:
    """Lightning's adverts and hints on choices made here on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*OpenCV is not installed.*")


__all__ = ["BEST", "Run", "fit", "open_data", "open_detector", "write_config"]
