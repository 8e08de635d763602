"""Reads the weights of a checkpoint without running any code in it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from od_detr.errors import InputError
from od_detr.files import read_json
from od_detr.run_files import DETECTOR_CONFIG, WEIGHTS, RunFiles
from od_detr.weight_files import check_finite, read_pickled, read_safetensors

# Keys under which training scripts store weights. Trained weights come before their moving average.
WRAPPERS = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "ema_model",
    "ema_state_dict",
    "ema_state",
    "ema",
)
SINGLE_FILES = (WEIGHTS, "pytorch_model.bin")
PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """Named weights in float32, and what is known of the model they belong to.

    Attributes:
        source: the file or directory that was read.
        weights: the tensors by name.
        arguments: the training script's arguments, if the checkpoint has them.
        config: the Hugging Face configuration, if there is one.
        processor: the configuration of the Hugging Face image processor, if there is one.
        notes: a line for each set of weights in the checkpoint that was not used.
    """

    source: Path
    weights: dict[str, Tensor]
    arguments: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_foreign_checkpoint(source: Path) -> Checkpoint:
    """Reads a checkpoint file (PyTorch or safetensors) or a Hugging Face directory.

    Raises:
        InputError: the file is missing, cannot be read, holds code, or has no weights.
    """
    if source.is_dir():
        return _read_directory(source)
    if not source.is_file():
        raise InputError(
            f"{source}: no such file; give a checkpoint file or a Hugging Face directory"
        )
    content = _read_file(source)
    weights, notes = _unwrap(source, content)
    arguments = content.get("args")
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    beside = source.parent / DETECTOR_CONFIG
    return Checkpoint(
        source,
        _clean(source, weights),
        dict(arguments) if isinstance(arguments, Mapping) else {},
        _read_json(beside) if source.name in SINGLE_FILES and beside.is_file() else {},
        _processor(source.parent) if source.name in SINGLE_FILES else {},
        notes,
    )


def _read_directory(directory: Path) -> Checkpoint:
    if RunFiles.of(directory).is_run:
        raise InputError(
            f"{directory}: is a run of this package; give --to huggingface, or use it as it is"
        )
    config = _read_json(directory / DETECTOR_CONFIG)
    for name in SINGLE_FILES:
        index = directory / f"{name}.index.json"
        if (directory / name).is_file():
            parts = [directory / name]
        elif index.is_file():
            parts = _parts(index)
        else:
            continue
        weights = {key: tensor for part in parts for key, tensor in _read_file(part).items()}
        weights = _clean(directory, weights)
        return Checkpoint(directory, weights, config=config, processor=_processor(directory))
    raise InputError(
        f"{directory}: has neither {' nor '.join(SINGLE_FILES)}; give a checkpoint file"
    )


def _processor(directory: Path) -> dict[str, Any]:
    file = directory / PROCESSOR
    return _read_json(file) if file.is_file() else {}


def _parts(index: Path) -> list[Path]:
    """The weight files that an index lists. All of them must be in its folder."""
    listed = _read_json(index).get("weight_map")
    names = set(listed.values()) if isinstance(listed, dict) else {""}
    wrong = [each for each in names if not isinstance(each, str) or Path(each).name != each]
    if wrong or not names:
        raise InputError(
            f"{index}: 'weight_map' must list names of files in its folder; download it again"
        )
    return [index.parent / name for name in sorted(names)]


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; a Hugging Face folder has one next to its weights")
    return read_json(file, "Hugging Face configuration", "download it again")


def _read_file(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; download the checkpoint again")
    if file.suffix == ".safetensors":
        return dict(read_safetensors(file))
    # Old DETR checkpoints store the script's arguments in a Namespace, which is plain data.
    content = read_pickled(file, [argparse.Namespace])
    if not isinstance(content, Mapping):
        raise InputError(
            f"{file}: holds a {type(content).__name__}, not named weights; give a checkpoint"
        )
    return dict(content)


def _unwrap(source: Path, content: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The state dict of a checkpoint, and a note for each other set of weights in it."""
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return content, ()
    inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    if inside:
        weights, notes = _unwrap(source, content[inside[0]])
        others = tuple(
            f"'{key}' of the checkpoint was not taken, '{inside[0]}' was" for key in inside[1:]
        )
        return weights, notes + others
    if any(isinstance(value, Tensor) for value in content.values()):
        return content, ()
    held = ", ".join(f"'{key}'" for key in list(content)[:5])
    raise InputError(
        f"{source}: holds no weights (only {held or 'nothing'}); give a checkpoint of a detector"
    )


def _clean(source: Path, weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Checks for finite tensors, casts them to float32 and removes the prefixes of wrappers."""
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{source}: '{name}' is a {type(value).__name__}, not a tensor; give a plain "
                "state dict"
            )
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    check_finite(source, weights)
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }
