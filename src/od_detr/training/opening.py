"""Opens what a run starts from: the data sets, and a new or an already trained detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from od_detr import ranks
from od_detr.data.dataset import CocoDataset
from od_detr.data.findings import raise_errors
from od_detr.data.folders import choices_of, open_split
from od_detr.data.headers.checks import with_header_findings
from od_detr.data.transforms import Transform
from od_detr.detectors import DetectionTransformer, build_detector, load_detector
from od_detr.detectors.classes import transfer_classes
from od_detr.errors import InputError
from od_detr.options import SIZES, TrainOptions, flag_name
from od_detr.run_files import saved_detector


def open_data(options: TrainOptions) -> tuple[CocoDataset, CocoDataset]:
    """Training and validation sets, checked; validation uses the training set's classes.

    The headers of all images are read, so that a broken image is reported before the first step.
    The first process of each node does it for the others.

    Raises:
        InputError: the data is wrong; `details` is a table of all problems of both sets.
    """
    data, choices = Path(options.data), choices_of(options)
    train = open_split(data, "train", choices)
    if not train.classes:  # without them, each category of the validation set would be unknown
        raise_errors(train.findings)
    val = open_split(data, "val", choices, train.classes)
    if ranks.current().local_rank == 0:
        train, val = with_header_findings(train), with_header_findings(val)
    raise_errors([*train.findings, *val.findings])
    augmented = Transform(options.image_size, augment=options.augment)
    unchanged = Transform(options.image_size, augment="none")
    train_set = CocoDataset(train, augmented, seed=options.seed)
    val_set = CocoDataset(val, unchanged)
    for line in (*train_set.described("train"), *val_set.described("val")):
        say(line)
    return train_set, val_set


def open_detector(
    options: TrainOptions, train: CocoDataset, frozen: bool | None = None
) -> DetectionTransformer:
    """The detector to train on a data set: a new one, or the one that `init` names.

    Args:
        options: the run's options.
        train: the training set, whose classes it detects.
        frozen: whether the backbone's norms and first stages are frozen; by default if it is
            pretrained.

    Raises:
        InputError: an image has more objects than the detector has queries, `--ag.stages` names
            layers that it does not have, or `init` does not fit.
    """
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
            f"{options.data}: an image has {train.most_targets} objects, more than the "
            f"{detector.num_queries} queries; give --queries {train.most_targets} or more"
        )
    options.check_stages(detector.num_layers)
    detector.encoder.recompute = options.checkpoint_encoder
    return detector


def fine_tuned(options: TrainOptions, classes: Sequence[str]) -> DetectionTransformer:
    """The detector saved in `init`, for these classes: those that it knows keep their weights.

    Raises:
        InputError: an option contradicts the saved detector.
    """
    directory = Path(options.init or "")
    trained, config = load_detector(saved_detector(directory))
    _check_same(options, trained.settings, directory)
    before = config.get("image_size", options.image_size)
    if before != options.image_size:
        say(f"{directory}: trained at {before} pixels; --image-size is now {options.image_size}")
    if list(classes) == config["classes"]:
        return trained.train()
    detector, new = transfer_classes(trained, config["classes"], classes)
    known = f"{len(classes) - len(new)} of {len(classes)} classes keep their weights"
    say(f"{directory}: {known}" + (f"; new are {', '.join(new)}" if new else ""))
    return detector


def say(line: str) -> None:
    """Prints a notice, from the first process only."""
    if ranks.is_chief():
        print(line)


def _check_same(options: TrainOptions, settings: dict[str, Any], directory: Path) -> None:
    """An option that is given agrees with the detector in `directory`."""
    model = settings["model"]
    if model != options.model:
        raise InputError(
            f"--model {options.model}: {directory} holds a {model}; give --model {model}"
        )
    for name in SIZES:
        if getattr(options, name) not in (None, settings.get(name)):
            raise InputError(
                f"--{flag_name(name)}: {directory} has its own sizes; leave it out with --init"
            )
    if options.backbone not in (TrainOptions.backbone, settings["backbone"]):
        raise InputError(
            f"--backbone {options.backbone}: {directory} has a {settings['backbone']}; leave it "
            "out with --init"
        )
