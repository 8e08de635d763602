"""What a run starts from: a trained detector, or the one of the checkpoint that it resumes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from od_detr import ranks
from od_detr.data.counts import counted
from od_detr.detectors import DetectionTransformer, build_detector
from od_detr.detectors.classes import transfer_classes
from od_detr.errors import InputError
from od_detr.integrations.weights.opening import open_weights
from od_detr.options import SIZES, TrainOptions, flag_name
from od_detr.options.data import DEFAULT_SIZE
from od_detr.options.train import DEFAULT_MODEL


@dataclass(frozen=True)
class Start:
    """A detector to start from, as it was read.

    Attributes:
        source: where it is from, as the user gave it.
        detector: the detector, on the CPU.
        classes: its class names; None if they are those of the training set.
        image_size: short side of its training images in pixels, if known.
    """

    source: str
    detector: DetectionTransformer
    classes: Sequence[str] | None = None
    image_size: int | None = None

    def detector_for(self, classes: Sequence[str]) -> DetectionTransformer:
        """The detector for these classes: those that it knows keep their weights."""
        if self.classes is None or list(classes) == list(self.classes):
            return copy.deepcopy(self.detector).train()  # a trial trains it
        detector, new = transfer_classes(self.detector, list(self.classes), classes)
        known = f"{len(classes) - len(new)} of {len(classes)} classes keep their weights"
        say(f"{self.source}: {known}" + (f"; new are {', '.join(new)}" if new else ""))
        return detector


def read_start(options: TrainOptions) -> Start | None:
    """The detector that `init` names; None where there is no `init`.

    Raises:
        InputError: it cannot be read, or an option contradicts it.
    """
    if options.init is None:
        return None
    detector, config = open_weights(options.init)
    start = Start(options.init, detector, config["classes"], config.get("image_size"))
    _check_same(options, detector.settings)
    return start


def resumed_start(checkpoint: Mapping[str, Any], source: str) -> Start:
    """The detector of a `last.ckpt`, without its weights: neither `init` nor a backbone's file is
    needed to go on.
    """
    return Start(source, build_detector(**checkpoint["detector"]))


def with_start(options: TrainOptions, start: Start | None) -> TrainOptions:
    """The options with architecture, backbone and image size: the user's, those of the start, or
    defaults.
    """
    if start is None:
        return replace(
            options,
            model=options.model or DEFAULT_MODEL,
            backbone=options.backbone_name,
            image_size=options.image_size or DEFAULT_SIZE,
        )
    settings, trained_at = start.detector.settings, start.image_size
    size = options.image_size or trained_at or DEFAULT_SIZE
    if start.classes is not None:
        say(
            f"{start.source}: a {settings['model']} with {settings['backbone']} and "
            f"{counted(len(start.classes), 'class')}"
            + (f", trained at {trained_at} pixels" if trained_at else "")
            + (f"; --image-size is now {size}" if size != trained_at else "")
        )
    model, backbone = settings["model"], settings["backbone"]
    return replace(options, model=model, backbone=backbone, image_size=size)


def say(line: str) -> None:
    """Prints a notice, from the first process only."""
    if ranks.is_chief():
        print(line)


def _check_same(options: TrainOptions, settings: Mapping[str, Any]) -> None:
    """An option that is given agrees with the detector in `init`."""
    model, source = settings["model"], options.init
    if options.model not in (None, model):
        raise InputError(
            f"--model {options.model}: {source} holds a {model}; leave it out or give "
            f"--model {model}"
        )
    for name in SIZES:
        if getattr(options, name) not in (None, settings.get(name)):
            raise InputError(
                f"--{flag_name(name)}: {source} has its own sizes; leave it out with --init"
            )
    if options.backbone_options not in ({}, settings.get("backbone_options")):
        raise InputError(f"--backbone-options: {source} has its own; leave it out with --init")
    if options.backbone_weights not in (TrainOptions.backbone_weights, "none"):
        # The config.yaml of another run may say it, which is no reason to stop.
        say(f"--backbone-weights {options.backbone_weights}: not read; {source} has its own")
    if options.backbone not in (None, settings["backbone"]):
        raise InputError(
            f"--backbone {options.backbone}: {source} has a {settings['backbone']}; leave it "
            "out with --init"
        )
