"""`last.ckpt`: written so that a kill at any moment leaves the old or the new one, and read without executing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins import TorchCheckpointIO

from od_detr.dotted import flat, with_values
from od_detr.errors import InputError
from od_detr.files import atomic_write
from od_detr.options import (
    MAY_CHANGE_ON_RESUME,
    PER_RUN,
    RESOLVED_LATER,
    TrainOptions,
    flag_name,
)
from od_detr.run_files import CONFIG_HEAD


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, then renames. Reads tensors and plain data only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_write(path) as partial:
                torch.save(checkpoint, partial)
        except (
            OSError,
            RuntimeError,
        ) as error:  # a full disk is a RuntimeError of torch's archive writer
            raise InputError(
                f"{path}: cannot be written ({_first_line(error)}); make room, then --resume"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a `last.ckpt`; code in it is never executed."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such checkpoint; give the --output of a run that was started before"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"state_dict", "batches_seen"} - checkpoint.keys()
        if missing:
            raise KeyError(f"without {' and '.join(sorted(missing))}")
    except Exception as error:  # torch.load raises half a dozen unrelated types for a damaged file
        raise InputError(
            f"{path}: cannot be read as a checkpoint ({_first_line(error)}); start anew or restore the file"
        ) from error
    return checkpoint


def resume_options(options: TrainOptions, config: Path) -> TrainOptions:
    """Options that continue the run of `config`: what they leave open is as it was resolved then.

    Raises:
        InputError: naming the first option that is given otherwise, both values and the mend.
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
    name = first_difference(
        before,
        {
            name: value
            for name, value in wanted.items()
            if name.split(".")[0] not in MAY_CHANGE_ON_RESUME
        },
    )
    if name:
        raise InputError(
            f"--{flag_name(name)} is {wanted[name]} but was {before[name]} when the run began; "
            f"continue it with --config {config} --resume"
        )
    left_open = [name for name in RESOLVED_LATER if wanted[name] is None and name in before]
    return with_values(options, {name: before[name] for name in left_open})


def first_difference(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first of the wanted options that a `config.yaml` has otherwise; it may be older than an option."""
    for name, value in wanted.items():
        if before.get(name, value) != value and not (value is None and name in RESOLVED_LATER):
            return name
    return None


def check_fits(checkpoint: dict[str, Any], module: torch.nn.Module, path: Path) -> None:
    """The weights to resume from are those of the detector that the data and the options ask for.

    Raises:
        InputError: naming the first tensor that differs.
    """
    saved, expected = checkpoint["state_dict"], module.state_dict()
    for name in expected:
        if name not in saved:
            raise InputError(
                f"{path}: has no '{name}', which these options need; give the options the run began with"
            )
        before, now = saved[name], expected[name]
        if torch.is_tensor(now) and before.shape != now.shape:
            raise InputError(
                f"{path}: '{name}' is {tuple(before.shape)}, but data and options ask for {tuple(now.shape)}; "
                "give those the run began with"
            )


def write_config(options: TrainOptions, path: Path) -> None:
    """Everything chosen, loadable with --config; a file of that name which is not ours is never written over."""
    if path.exists() and not path.read_text(errors="replace").startswith(CONFIG_HEAD):
        raise InputError(f"{path}: is there already and not a run's; give another --output")
    values = plain(dataclasses.asdict(options))
    chosen = {name: value for name, value in values.items() if name not in PER_RUN}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(CONFIG_HEAD + yaml.safe_dump(chosen, sort_keys=False))


def plain(value: Any) -> Any:
    """Dictionaries, lists and scalars only, as YAML knows them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
