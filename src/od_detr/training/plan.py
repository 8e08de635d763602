"""From options to everything a run consists of: first planned, then assembled."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric, seed_everything

from od_detr.checkpoints import Checkpoint, load_checkpoint
from od_detr.data.dataset import CocoDataset
from od_detr.data.loading.batching import AlikeBatches, BatchSampler
from od_detr.data.loading.workers import Loader
from od_detr.detectors import DetectionTransformer, check_compiles, compile_backbone
from od_detr.evaluation.scoring import Scorer
from od_detr.files import locked, make_directory, writing
from od_detr.machine.devices import (
    check_devices,
    choose_device,
    described_arithmetic,
    set_arithmetic,
)
from od_detr.machine.limits import cores
from od_detr.options import EmaOptions, TrainOptions, check_limits
from od_detr.ranks import SRUN, Ranks, settle, settled
from od_detr.run_files import RunFiles
from od_detr.training.nonfinite.guard import FiniteGuard
from od_detr.training.processes.launch import Launched
from od_detr.training.recipe import make_recipe
from od_detr.training.record.fingerprint import fingerprint
from od_detr.training.record.loggers import chosen_logger
from od_detr.training.record.output import check_free, check_output, check_same_save, last_save
from od_detr.training.record.resume import check_fits, check_same_data, resume_options
from od_detr.training.record.run_config import resolved
from od_detr.training.record.state import RunState
from od_detr.training.record.validation import ONLINE, TEACHER, Validation
from od_detr.training.setup.epochs import with_epochs
from od_detr.training.setup.freezing import check_freeze
from od_detr.training.setup.opening import open_composition, open_data, open_detector
from od_detr.training.setup.start import Start, read_start, resumed_start, say, with_start
from od_detr.training.setup.together import check_together
from od_detr.training.supervised import Supervised
from od_detr.training.teacher import Teacher, scaled_decay


@dataclass(frozen=True)
class Plan:
    """A run that was checked as far as options and files allow; nothing is written yet.

    Attributes:
        options: what the user chose; of a resumed run, with what was resolved when it began.
        place: this process among those that train together.
        files: the run's files.
        checkpoint: what to resume from, if there is anything.
        start: the detector to start from, if there is one.
        save: which save was the last one before the checkpoint was read.
    """

    options: TrainOptions
    place: Ranks
    files: RunFiles
    checkpoint: Checkpoint | None = None
    start: Start | None = None
    save: tuple[int, int] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training the same run inside the block.

        Raises:
            InputError: another process trains it, or has done so since this was planned.
        """
        with writing(self.files.directory):
            make_directory(self.files.directory)
        refusal = f"{self.files.directory}: another process trains this run; wait until it ends"
        with locked(self.files.run_lock, refusal):
            if self.checkpoint is None:
                check_free(self.files)
            else:
                check_same_save(self.files, self.save)
            yield


@dataclass(frozen=True)
class Parts:
    """Everything that a run consists of, on the CPU; nothing is written yet.

    Attributes:
        plan: what it was made from.
        options: with everything resolved, as `config.yaml` holds them.
        fabric: the processes and devices that train; not launched yet.
        network: the detector, its recipe and its teacher.
        train: training set.
        train_batches: its batches, in the order of `sampler`.
        sampler: order of the training set.
        val: validation set.
        val_batches: its batches, of images of equal size.
        state: progress and measurements.
    """

    plan: Plan
    options: TrainOptions
    fabric: Fabric
    network: Supervised
    train: CocoDataset
    train_batches: Loader
    sampler: BatchSampler
    val: CocoDataset
    val_batches: Loader
    state: RunState

    @property
    def epoch(self) -> int:
        """Whole epochs that were trained before."""
        checkpoint = self.plan.checkpoint
        return 0 if checkpoint is None else checkpoint.contents["run"]["epoch"]

    @property
    def is_finished(self) -> bool:
        """Whether all epochs were trained before, and the last one validated."""
        return self.validations_left == 0

    @property
    def validations_left(self) -> int:
        """Validations from here on, with one that a stop left out."""
        checkpoint = self.plan.checkpoint
        due = checkpoint is not None and checkpoint.contents["run"]["validation_due"]
        epochs = range(self.epoch + 1, self.options.total_epochs + 1)
        return due + sum(map(self.validates, epochs))

    def validates(self, epoch: int) -> bool:
        """Whether a validation follows an epoch, counted from 1."""
        options = self.options
        return epoch == options.total_epochs or epoch % options.eval.every == 0

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Ends the data workers of both sets with the block; see `Loader.watched`."""
        with self.train_batches.watched(), self.val_batches.watched():
            yield


def planned(options: TrainOptions) -> Plan:
    """Checks the options and the run's directory and reads the checkpoint to resume.

    Raises:
        InputError: an option makes no sense, the device is not present, or the directory holds
            something else than this run.
    """
    check_limits(options)
    place = settled(options.devices, options.nodes)
    settle(place)
    options = replace(options, devices=place.devices, nodes=place.nodes)
    kind = check_devices(options.device, place.devices, options.precision, place.other_launcher)
    chosen_logger(options.logger)
    if options.compile:
        check_compiles(kind)
    files = RunFiles(Path(options.output))
    check_output(files, Path(options.data))
    if not options.resume:
        check_free(files)
        return _from_the_start(options, place, files)
    if files.is_begun and not files.is_saved:
        check_free(files)
        say(f"{files.directory}: nothing was saved yet, so the run starts from the beginning")
        return _from_the_start(resume_options(options, files.config), place, files)
    save = last_save(files)
    checkpoint = load_checkpoint(files)
    if checkpoint.notice:
        say(checkpoint.notice)
    options = resume_options(options, files.config)
    start = resumed_start(checkpoint.contents, str(files.last))
    return Plan(with_start(options, start), place, files, checkpoint, start, save)


def _from_the_start(options: TrainOptions, place: Ranks, files: RunFiles) -> Plan:
    """A run that has nothing to resume."""
    check_together(options)
    check_freeze(options.freeze, options.init, options.backbone_weights)
    start = read_start(options)
    return Plan(with_start(options, start), place, files, start=start)


def assembled(plan: Plan, frozen: bool | None = None) -> Parts:
    """Opens the data and builds detector, teacher and recipe.

    Args:
        plan: what to train.
        frozen: see `open_detector`.

    Raises:
        InputError: data, options and checkpoint do not fit one another.
    """
    _quiet()
    options = plan.options
    choose_arithmetic(options.device, options.precision, options.matmul)
    seed_everything(options.seed, verbose=False)
    train, val = open_data(options, plan.place)
    data = fingerprint(train, val)
    if plan.checkpoint is not None and not options.resume_with_other_data:
        check_same_data(plan.checkpoint, data)
    detector = open_detector(options, train, plan.start, frozen)
    train.most_in_mosaic = detector.num_queries
    train.composition = open_composition(options, train.annotations)
    place: dict[str, Any] = {"rank": plan.place.rank, "world_size": plan.place.world_size}
    sampler = BatchSampler(
        train.composition,
        options.device_batch,
        seed=options.seed,
        drop_last=True,
        accumulate=options.accumulate,
        **place,
    )
    val_sampler = AlikeBatches(val.input_sizes(), options.device_batch, **place)
    steps_per_epoch = -(-len(sampler) // options.accumulate)
    options = with_epochs(options, steps_per_epoch)
    teacher = None
    if options.has_teacher:
        teacher = make_teacher(detector, options.ema, steps_per_epoch * options.total_epochs)
    recipe = make_recipe(options, detector, teacher)
    if options.compile:
        for each in (detector,) if teacher is None else (detector, teacher.detector):
            compile_backbone(each)
    network = Supervised(detector, recipe, teacher)
    if plan.checkpoint is not None:
        check_fits(plan.checkpoint, network, steps_per_epoch)
    scorers = {
        name: Scorer(val.annotations, val.category_ids, recipe.cost, options.eval.topk)
        for name in ([ONLINE] if teacher is None else [ONLINE, TEACHER])
    }
    workers = spare_cores(plan.place) if options.workers is None else options.workers
    return Parts(
        plan=plan,
        options=resolved(options, detector, teacher),
        fabric=make_fabric(options.device, plan.place),
        network=network,
        train=train,
        train_batches=Loader(train, sampler, workers),
        sampler=sampler,
        val=val,
        val_batches=Loader(val, val_sampler, workers),
        state=RunState(
            Validation(scorers),
            FiniteGuard(options.nonfinite_limit),
            steps_per_epoch,
            options.accumulate,
            data,
        ),
    )


def make_teacher(detector: DetectionTransformer, ema: EmaOptions, steps: int) -> Teacher:
    """The average of the detector over a run of `steps` optimizer steps."""
    decay = scaled_decay(steps) if ema.decay is None else ema.decay
    return Teacher(detector, decay, ema.warmup, ema.warmup_steps)


def make_fabric(device: str, place: Ranks) -> Fabric:
    """The processes and devices of a run; precision is the training step's own affair."""
    return Fabric(
        accelerator=device,
        devices=place.devices,
        num_nodes=place.nodes,
        strategy="ddp" if place.world_size > 1 else "auto",
        plugins=[Launched(place)] if place.world_size > 1 else [],
    )


def choose_arithmetic(device: str, precision: str, matmul: str) -> None:
    """Sets how float32 matrices are multiplied, and says so where there is a choice."""
    kind = choose_device(device).type
    set_arithmetic(matmul, kind)
    if kind == "cuda":
        say(f"computing in {described_arithmetic(precision, matmul, kind)}")


def spare_cores(place: Ranks) -> int:
    """The cores of this machine but one for each device, shared evenly between the devices.

    A task of srun that is bound to its own cores sees no others.
    """
    present = cores()
    bound = place.launcher == SRUN and present <= int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    return max(0, (present if bound else present // place.devices) - 1)


def _quiet() -> None:
    """Silences adverts, and hints at choices that were made here on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    # The schedule counts steps, also one that the scaler of fp16 skips.
    warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\)` before")
