"""Resuming a run: what its options and its data must have in common with the checkpoint."""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from od_detr.checkpoints import Checkpoint
from od_detr.dotted import flat, with_values
from od_detr.errors import InputError, first_line
from od_detr.options import MAY_CHANGE_ON_RESUME, RESOLVED_LATER, TrainOptions, flag_name
from od_detr.plain_yaml import parse_yaml
from od_detr.training.nonfinite.guard import all_finite
from od_detr.training.record.fingerprint import what_changed
from od_detr.training.record.run_config import plain_options
from od_detr.training.setup.start import say

# How the images of a step are shared. A resumed run may share them otherwise.
SHARES = ("batch_size", "accumulate", "devices", "nodes")
A_NEW_RUN = "begin a new run from this one with --init"


def resume_options(options: TrainOptions, config: Path) -> TrainOptions:
    """Options that continue the run of `config`; what they leave open is as it was resolved then.

    Raises:
        InputError: naming the first option that differs, and both values.
    """
    if not config.is_file():
        return options
    try:
        before = flat(parse_yaml(config.read_text()))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{config}: cannot be read ({first_line(error)}); restore the file"
        ) from error
    wanted = flat(plain_options(options))
    left_open = {
        name: before[name] for name in RESOLVED_LATER if wanted[name] is None and name in before
    }
    wanted |= left_open
    fixed = {
        name: value
        for name, value in wanted.items()
        if name.split(".")[0] not in MAY_CHANGE_ON_RESUME
    }
    if images_a_step(before) == images_a_step(wanted):
        fixed = {name: value for name, value in fixed.items() if name not in SHARES}
    name = first_difference(before, fixed)
    if name in SHARES:
        raise InputError(_other_step(before, wanted, config))
    if name:
        raise InputError(
            f"--{flag_name(name)} is {wanted[name]} but was {before[name]} when the run began; "
            f"continue it with --config {config} --resume"
        )
    options = with_values(options, left_open)
    if options.epochs != before.get("epochs") and options.drops:
        say(
            f"{config.parent}: the learning rate still drops after epoch {options.drop_epoch}, as "
            "when the run began"
        )
    return options


def images_a_step(options: Mapping[str, Any]) -> int:
    """Images of an optimizer step, on all devices together; options that are missing count as 1."""
    return math.prod(options.get(name) or 1 for name in SHARES)


def _other_step(before: Mapping[str, Any], now: Mapping[str, Any], config: Path) -> str:
    """What to do about a step that would have another number of images than when a run began."""
    images, others = images_a_step(before), images_a_step(now)
    way = "as many images a step"
    for name in ("accumulate", "batch_size"):
        rest = others // (now.get(name) or 1)
        if images % rest == 0:
            way = f"--{flag_name(name)} {images // rest}"
            break
    return (
        f"a step would have {others} images but had {images} when the run began; give {way}, "
        f"or continue it with --config {config} --resume"
    )


def first_difference(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first wanted option that a `config.yaml` has with another value.

    The file may be older than an option; what is None now may have been resolved then.
    """
    for name, value in wanted.items():
        if before.get(name, value) != value and not (value is None and name in RESOLVED_LATER):
            return name
    return None


def check_same_data(checkpoint: Checkpoint, now: Mapping[str, Any]) -> None:
    """Refuses to continue on other data than the run began with.

    Args:
        checkpoint: what the run continues from.
        now: the fingerprint of the data that is there now.

    Raises:
        InputError: saying what changed.
    """
    before = checkpoint.contents["run"].get("data", {})
    changed = what_changed(before, now)
    if changed:
        classes = now["class"]
        fits = len(before.get("class", classes)) == len(classes)
        way = "--resume-with-other-data" if fits else A_NEW_RUN
        raise InputError(
            f"{checkpoint.file}: {changed} since the run began; give the data it began with, or "
            f"{way}"
        )


def check_fits(checkpoint: Checkpoint, network: torch.nn.Module, steps_per_epoch: int) -> None:
    """Checks that a checkpoint belongs to the detector and the data that the options ask for.

    Raises:
        InputError: naming the first tensor that differs, or an epoch of another length: the
            learning-rate schedule counts steps.
    """
    path, contents = checkpoint.file, checkpoint.contents
    _check_weights(path, contents["state_dict"], network)
    # Under fp16 the first steps may have been skipped, until the scale fits.
    may_be_empty = bool(contents.get("scaler"))
    _check_moments(path, contents["optimizer"], network, may_be_empty)
    before = contents["run"]["steps_per_epoch"]
    if before != steps_per_epoch:
        raise InputError(
            f"{path}: an epoch had {before} steps and would now have {steps_per_epoch}; give the "
            f"training images and the batch size that the run began with, or {A_NEW_RUN}"
        )


def _check_weights(path: Path, saved: Mapping[str, Any], network: torch.nn.Module) -> None:
    """Names, shapes, types and values of the weights; the rest of a state dict is plain data."""
    expected = network.state_dict()
    stopped = {name: name.replace("teacher.evaluation.", "teacher.average.") for name in saved}
    for name in (*expected, *stopped):
        like = expected.get(stopped.get(name, name))
        if name not in saved or like is None:
            raise InputError(
                f"{path}: {'has no' if like is not None else 'does not need its'} "
                f"{reprlib.repr(name)} for these options; give the options the run began with"
            )
        if not torch.is_tensor(like):
            continue
        before = saved[name]
        if not torch.is_tensor(before) or before.shape != like.shape:
            shape = tuple(before.shape) if torch.is_tensor(before) else type(before).__name__
            raise InputError(
                f"{path}: '{name}' is {shape}, but data and options ask for {tuple(like.shape)}; "
                "give those the run began with"
            )
        if before.dtype != like.dtype or not all_finite([before]):
            wrong = f"of type {before.dtype}" if before.dtype != like.dtype else "not finite"
            raise InputError(f"{path}: '{name}' is {wrong}; restore an earlier copy of the file")


def _check_moments(
    path: Path, saved: Mapping[str, Any], network: torch.nn.Module, may_be_empty: bool
) -> None:
    """The optimizer's moments belong to the trainable weights and are finite."""
    shapes = Counter(each.shape for each in network.parameters() if each.requires_grad)
    numbers = [number for group in saved["param_groups"] for number in group.get("params", ())]
    held = Counter(
        moment.shape
        for state in saved["state"].values()
        for name, moment in state.items()
        if name == "exp_avg"
    )
    tensors = [each for state in saved["state"].values() for each in state.values()]
    if len(numbers) != shapes.total() or held - shapes or not (saved["state"] or may_be_empty):
        raise InputError(
            f"{path}: the optimizer's state is that of other weights; give the options the run "
            "began with"
        )
    if not all_finite(tensors):
        raise InputError(
            f"{path}: the optimizer's state is not finite; restore an earlier copy of the file"
        )
