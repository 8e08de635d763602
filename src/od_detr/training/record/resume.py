"""Resuming a run: its `last.ckpt`, and what options and data must have in common with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from od_detr.dotted import flat, with_values
from od_detr.errors import InputError
from od_detr.files import atomic_write
from od_detr.options import MAY_CHANGE_ON_RESUME, RESOLVED_LATER, TrainOptions, flag_name
from od_detr.training.record.run_config import plain

NEEDED = ("state_dict", "optimizer", "schedule", "global_step", "run")


def write_checkpoint(contents: Mapping[str, Any], path: Path) -> None:
    """Writes a `last.ckpt`; a kill at any moment leaves the old one or the new one.

    Raises:
        InputError: the disk is full, or the file cannot be written for another reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            torch.save(dict(contents), partial)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise InputError(
            f"{path}: cannot be written ({_first_line(error)}); free some space, then --resume"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a `last.ckpt`, on the CPU; code in it is never executed.

    Raises:
        InputError: there is none, or it is damaged or not a run's.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such checkpoint; give the --output of a run that was started before"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        missing = [name for name in NEEDED if name not in checkpoint]
    except Exception as error:  # torch.load raises half a dozen unrelated types for a damaged file
        raise InputError(
            f"{path}: cannot be read as a checkpoint ({_first_line(error)}); restore the file, or "
            "start again with another --output"
        ) from error
    if missing:
        raise InputError(
            f"{path}: has no '{missing[0]}', so it is not a checkpoint of this version; start again "
            "with another --output"
        )
    return checkpoint


def resume_options(options: TrainOptions, config: Path) -> TrainOptions:
    """Options that continue the run of `config`; what they leave open is as it was resolved then.

    Raises:
        InputError: naming the first option that differs, and both values.
    """
    if not config.is_file():
        return options
    try:
        before = flat(yaml.safe_load(config.read_text()))
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise InputError(
            f"{config}: cannot be read ({_first_line(error)}); restore the file"
        ) from error
    wanted = flat(plain(dataclasses.asdict(options)))
    fixed = {
        name: value
        for name, value in wanted.items()
        if name.split(".")[0] not in MAY_CHANGE_ON_RESUME
    }
    name = first_difference(before, fixed)
    if name:
        raise InputError(
            f"--{flag_name(name)} is {wanted[name]} but was {before[name]} when the run began; "
            f"continue it with --config {config} --resume"
        )
    left_open = [name for name in RESOLVED_LATER if wanted[name] is None and name in before]
    return with_values(options, {name: before[name] for name in left_open})


def first_difference(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first wanted option that a `config.yaml` has with another value.

    The file may be older than an option; what is None now may have been resolved then.
    """
    for name, value in wanted.items():
        if before.get(name, value) != value and not (value is None and name in RESOLVED_LATER):
            return name
    return None


def check_fits(
    checkpoint: Mapping[str, Any], network: torch.nn.Module, steps_per_epoch: int, path: Path
) -> None:
    """Checks that a checkpoint belongs to the detector and the data that the options ask for.

    Raises:
        InputError: naming the first tensor that differs, or an epoch of another length: the
            learning-rate schedule counts steps.
    """
    saved, expected = checkpoint["state_dict"], network.state_dict()
    for name in expected:
        if name not in saved:
            raise InputError(
                f"{path}: has no '{name}', which these options need; give the options the run "
                "began with"
            )
        before, now = saved[name], expected[name]
        if torch.is_tensor(now) and before.shape != now.shape:
            raise InputError(
                f"{path}: '{name}' is {tuple(before.shape)}, but data and options ask for "
                f"{tuple(now.shape)}; give those the run began with"
            )
    before = checkpoint["run"]["steps_per_epoch"]
    if before != steps_per_epoch:
        raise InputError(
            f"{path}: an epoch had {before} steps and would now have {steps_per_epoch}; give the "
            "training images and the batch size that the run began with"
        )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
