"""Opens what a run starts from: the data sets, and a new or an already trained detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from od_detr.data.annotations import Annotations
from od_detr.data.counts import counted
from od_detr.data.dataset import CocoDataset
from od_detr.data.findings import raise_errors
from od_detr.data.folders import choices_of, open_split
from od_detr.data.headers.checks import (
    are_few,
    raise_unless_usable,
    usable,
    with_header_findings,
)
from od_detr.data.preparation.splitting import DIVIDED
from od_detr.data.sampling.composition import Composition
from od_detr.data.sampling.rules import composed, described
from od_detr.data.transforms import Transform
from od_detr.detectors import DetectionTransformer, build_detector
from od_detr.errors import InputError
from od_detr.options import SIZES, TrainOptions
from od_detr.options.train import DEFAULT_MODEL
from od_detr.ranks import Ranks
from od_detr.training.setup.freezing import freeze
from od_detr.training.setup.start import Start, say

SKIPPED_SHOWN = 10  # images, one line each


def open_data(options: TrainOptions, place: Ranks) -> tuple[CocoDataset, CocoDataset]:
    """Training and validation sets, checked; validation uses the training set's classes.

    The headers of all images are read, so that a broken image is reported or left out before the
    first step. The first process of each node does it for the others, which find what it read in
    the cache.

    Args:
        options: the run's options.
        place: which process this is; several leave out no image unasked.

    Raises:
        InputError: the data is wrong; `details` is a table of all problems of both sets.
    """
    data, choices = Path(options.data), choices_of(options)
    train = open_split(data, "train", choices)
    if not train.classes:  # without them, each category of the validation set would be unknown
        raise_errors(train.findings)
    val = open_split(data, "val", choices, train.classes)
    train, val = (_images_checked(split, options.on_unreadable, place) for split in (train, val))
    raise_unless_usable([*train.findings, *val.findings])
    augmented = Transform(options.short_side, augment=options.augment)
    unchanged = Transform(options.short_side, augment="none")
    train_set = CocoDataset(train, augmented, seed=options.seed)
    val_set = CocoDataset(val, unchanged)
    described = (*train_set.described("train"), *val_set.described("val"))
    for line in (*described, *_undivided(options, val), *_shared(train, val)):
        say(line)
    return train_set, val_set


def _undivided(options: TrainOptions, val: Annotations) -> list[str]:
    """A line if an option says how to divide a data set that has its own validation split."""
    given = {
        "--val-fraction": options.val_fraction != TrainOptions.val_fraction,
        "--group": options.group is not None,
    }
    named = " and ".join(flag for flag, is_given in given.items() if is_given)
    if not named or any(each.code == DIVIDED for each in val.findings):
        return []
    return [f"val: {val.file} is the data's own validation split, so {named} has no effect"]


def _shared(train: Annotations, val: Annotations) -> list[str]:
    """A line if images of the validation set are trained on."""
    trained = set(train.paths)
    shared = sum(path in trained for path in val.paths)
    if not shared:
        return []
    return [
        f"val: {shared} of {counted(len(val.paths), 'image')} are trained on, too: AP, and which "
        "weights are best, say little about new images"
    ]


def _images_checked(split: Annotations, policy: str, place: Ranks) -> Annotations:
    """A split without those images that are to be skipped, or with what is wrong about them.

    Raises:
        InputError: all images are to be skipped.
    """
    if policy == "stop" or (policy == "few" and place.world_size > 1):
        # The other processes of a node need not look at the same files again.
        return with_header_findings(split) if place.local_rank == 0 else split
    left, lines = usable(split)
    if policy == "few" and not are_few(len(lines), len(split.image_ids)):
        return with_header_findings(split)
    for line in lines[:SKIPPED_SHOWN]:
        say(f"skipped: {line}")
    if len(lines) > SKIPPED_SHOWN:
        say(f"skipped: {len(lines) - SKIPPED_SHOWN} more images of {split.file}")
    if not len(left.image_ids):
        raise InputError(f"{split.file}: no image can be used; give another folder")
    return left


def open_composition(options: TrainOptions, train: Annotations) -> Composition:
    """The images of an epoch; says which they are if an option chooses them.

    Raises:
        InputError: there are no images, with or without objects, to choose from.
    """
    composition = composed(train, options.balance, options.background_fraction)
    if options.balance is not None or options.background_fraction is not None:
        say(described(composition))
    return composition


def open_detector(
    options: TrainOptions,
    train: CocoDataset,
    start: Start | None = None,
    frozen: bool | None = None,
) -> DetectionTransformer:
    """The detector to train on a data set: a new one, or the one to start from.

    Args:
        options: the run's options.
        train: the training set, whose classes it detects.
        start: what to start from.
        frozen: whether the backbone's norms and first stages are frozen; by default if it is
            pretrained.

    Raises:
        InputError: an image has more objects than the detector has queries, or `--ag.stages`
            names layers that it does not have.
    """
    if start is None:
        detector = build_detector(
            options.model or DEFAULT_MODEL,
            len(train.classes),
            backbone=options.backbone_name,
            backbone_weights=options.backbone_weights,
            backbone_options=options.backbone_options or None,
            backbone_frozen=frozen,
            top_k=options.eval.topk,
            **{name: getattr(options, name) for name in SIZES},
        )
    else:
        detector = start.detector_for(train.classes)
        if options.eval.topk is not None:
            detector.settings["top_k"] = options.eval.topk
    if train.most_targets > detector.num_queries:
        need = f"--queries {train.most_targets} or more"
        fix = f"give {need}" if start is None else f"leave out --init and give {need}"
        raise InputError(
            f"{options.data}: an image has {train.most_targets} objects, more than the "
            f"{detector.num_queries} queries; {fix}"
        )
    _check_stages(options.ag.stages, detector.num_layers)
    detector.encoder.recompute = options.checkpoint_encoder
    freeze(detector, options.freeze)
    return detector


def _check_stages(stages: Sequence[int] | None, layers: int) -> None:
    """Refuses `ag.stages` that a detector with this many decoder layers does not have."""
    if stages is None:
        return
    named = {stage % (layers + 1) for stage in stages if 1 <= abs(stage) <= layers}
    if not stages or len(named) < len(stages):
        raise InputError(
            f"--ag.stages: {list(stages)} are not stages of {layers} decoder layers; "
            f"give each once, from 1 to {layers}, or from -1, the last, to -{layers}"
        )
