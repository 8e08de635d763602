"""Building a detector by name, saving it and loading it again.

A saved detector is a folder with `model.safetensors` and a `config.json` that says how to build the
detector and what it detects. Nothing in the folder is trusted: see `load_detector`.

The weights carry a copy of their configuration and a SHA-256 of both, which `config.json` repeats.
So the folder changes in one moment, when the weights are renamed: a `config.json` of other weights
is recognised and not used.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from od_detr.architectures import ARCHITECTURES
from od_detr.detectors.sizes import DinoSizes, Sizes
from od_detr.detectors.transformer import DetectionTransformer
from od_detr.errors import InputError, first_line
from od_detr.files import atomic_write, make_directory, parse_json, read_json, writing
from od_detr.run_files import DETECTOR_CONFIG as CONFIG
from od_detr.run_files import WEIGHTS
from od_detr.weight_files import check_weights, read_metadata, read_safetensors

OWN = "od_detr"  # entry of the weights' metadata
MAX_CONFIG_BYTES = 16 * 2**20
IMAGE_SIZES = range(16, 10_001)
# Names of settings in folders that were written before commit 5d7007f.
OLD_NAMES = {"levels": "num_levels"}


def build_detector(model: str, num_classes: int, **sizes: Any) -> DetectionTransformer:
    """A new detector.

    Args:
        model: the architecture, by its name on the command line.
        num_classes: number of classes.
        sizes: arguments of the architecture's builder; None keeps its default.

    Raises:
        InputError: an unknown architecture, or sizes that it cannot have.
    """
    if model not in ARCHITECTURES:
        near = difflib.get_close_matches(model, ARCHITECTURES, 1)
        raise InputError(
            f"--model {model}: no such model; "
            + (f"did you mean {near[0]}?" if near else f"known are {', '.join(ARCHITECTURES)}")
        )
    chosen = {name: value for name, value in sizes.items() if value is not None}
    fixed, levels = ARCHITECTURES[model].num_levels, chosen.get("num_levels")
    if fixed is not None and chosen.pop("num_levels", fixed) != fixed:
        fitting = [name for name, each in ARCHITECTURES.items() if each.num_levels == levels]
        other = f"; use --model {fitting[0]} for {levels}" if fitting else ""
        raise InputError(f"--num-levels {levels}: {model} always has {fixed} levels{other}")
    if fixed is not None:
        chosen["num_levels"] = fixed
    return resolve_name(ARCHITECTURES[model].builder)(num_classes, **chosen)


def save_detector(
    detector: DetectionTransformer, directory: Path, classes: Sequence[str], **facts: Any
) -> None:
    """Writes weights and configuration, as one unit; a kill leaves the old or the new detector.

    Args:
        detector: one whose backbone was built from a name.
        directory: folder to write, made where it is missing.
        classes: class names in the order of the labels.
        facts: kept in `config.json` with the architecture: category ids, image size, AP, which
            weights won.

    Raises:
        InputError: a file cannot be written.
    """
    from safetensors.torch import save

    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()
    }
    config = {"detector": detector.settings, "classes": list(classes), **facts}
    config["sha256"] = digest_of(weights, config)
    # One entry of metadata, since safetensors writes several in an order that changes.
    content = save(weights, metadata={OWN: json.dumps(config)})
    with writing(directory):
        make_directory(directory)
    with writing(directory / WEIGHTS), atomic_write(directory / WEIGHTS) as partial_file:
        partial_file.write_bytes(content)
    with writing(directory / CONFIG), atomic_write(directory / CONFIG) as partial_file:
        partial_file.write_text(json.dumps(config, indent=2) + "\n")


def load_detector(directory: Path) -> tuple[DetectionTransformer, dict[str, Any]]:
    """The detector saved in `directory`, in eval mode on the CPU, and its configuration.

    Reads the two files and nothing else, neither network nor other files, whatever they say. The
    configuration may hold plain sizes only. The weights must be exactly those of the detector it
    describes, which is checked before memory for them is allocated. Where they carry a SHA-256, it
    is compared.

    Raises:
        InputError: a missing or damaged file, a configuration of something else, or weights that do
            not fit it.
    """
    if not (directory / WEIGHTS).is_file():
        raise InputError(
            f"{directory}: has no {WEIGHTS}; give the best/ folder of a run, or the run itself"
        )
    own = _own_config(directory / WEIGHTS)
    config = _config_beside(own, directory)
    settings = dict(config["detector"])
    try:
        with WithoutInitialWeights():
            with torch.device("meta"):
                expected = build_detector(**settings).state_dict()
            weights = read_safetensors(directory / WEIGHTS, expected)
            detector = build_detector(**settings)
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError) and str(error).startswith(str(directory)):
            raise
        raise InputError(f"{directory / CONFIG}: {first_line(error)}") from error
    if own is not None and own.get("sha256") != digest_of(weights, own):
        raise InputError(
            f"{directory / WEIGHTS}: is damaged: its SHA-256 differs; save or download it again"
        )
    detector.load_state_dict(weights)
    return detector.eval(), config


class WithoutInitialWeights(TorchFunctionMode):
    """Sets no initial weights inside a `with`: all of them are replaced afterwards."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Returns the tensor as it is instead of filling it."""
        kwargs = kwargs or {}
        initial = getattr(func, "__module__", "") == init.__name__
        if initial or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def digest_of(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """SHA-256 of a detector: its configuration, and the names and bytes of its weights."""
    described = {name: value for name, value in config.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(detector: DetectionTransformer, weights: dict[str, Tensor], source: Path) -> None:
    """Loads a complete state dict, which was read from `source`.

    Raises:
        InputError: naming the first tensor that is missing, surplus, of another shape or type, or
            not finite.
    """
    check_weights(source, weights, detector.state_dict())
    detector.load_state_dict(weights)


def read_config(file: Path) -> dict[str, Any]:
    """The checked content of a `config.json`: `detector`, `classes`, and whatever facts were saved.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise InputError(f"{file}: is larger than any detector's configuration; save the run again")
    return _checked(file, read_json(file, "detector's configuration", "save the run again"))


def _own_config(weights: Path) -> dict[str, Any] | None:
    """The configuration that a file of weights carries, if it does."""
    text = read_metadata(weights).get(OWN)
    return None if text is None else parse_json(text, weights, "configuration", "save it again")


def _config_beside(own: dict[str, Any] | None, directory: Path) -> dict[str, Any]:
    """The checked configuration of a detector whose weights carry `own`.

    It is `config.json`, unless that is missing or belongs to other weights: the program that was
    replacing both files was killed in between.
    """
    file = directory / CONFIG
    if file.is_file():
        config = read_config(file)
        if own is None or config.get("sha256") in (None, own.get("sha256")):
            _check_same_sizes(file, config, own)
            return config
    elif own is None:
        raise InputError(
            f"{directory}: has no {CONFIG}; give the best/ folder of a run, or the run itself"
        )
    return _checked(directory / WEIGHTS, dict(own))


def _check_same_sizes(file: Path, config: dict[str, Any], own: dict[str, Any] | None) -> None:
    """Refuses sizes that were changed since: weights may fit and still compute other values."""
    before = {} if own is None else _checked(file, dict(own))["detector"]
    for name, value in before.items():
        if config["detector"].get(name) != value:
            raise InputError(
                f"{file}: {name} is {reprlib.repr(config['detector'].get(name))}, but the weights "
                f"were saved with {reprlib.repr(value)}; restore it"
            )


def _checked(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that was read from `file`, under today's names."""
    settings = config.get("detector")
    if not isinstance(settings, dict):
        raise InputError(
            f"{file}: not a detector's configuration (no 'detector'); save the run again"
        )
    config["detector"] = settings = _checked_settings(file, settings)
    _check_facts(file, config, settings["num_classes"])
    return config


def _checked_settings(file: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The builder's arguments, each a plain value of its type, under today's names."""
    renamed = {OLD_NAMES.get(name, name): value for name, value in settings.items()}
    model = renamed.get("model")
    if not isinstance(model, str) or model not in ARCHITECTURES:
        raise InputError(
            f"{file}: model {reprlib.repr(model)} is not a known architecture; use one of "
            + ", ".join(ARCHITECTURES)
        )
    sizes = DinoSizes if ARCHITECTURES[model].two_stage else Sizes
    types = get_type_hints(sizes) | {"model": str, "num_classes": int, "backbone": str}
    for name in ("num_classes", "backbone"):
        if name not in renamed:
            raise InputError(f"{file}: has no '{name}'; save the run again")
    for name, value in renamed.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, 1)
            hint = f"; did you mean {near[0]}?" if near else "; save the run again"
            raise InputError(f"{file}: '{name}' is not a setting of {model}{hint}")
        if not _is_of(value, types[name]):
            raise InputError(
                f"{file}: {name} {reprlib.repr(value)} is of the wrong type; save the run again"
            )
    return {name: tuple(v) if isinstance(v, list) else v for name, v in renamed.items()}


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of the type of a field of `Sizes`."""
    if kind == tuple[int, ...]:
        return isinstance(value, list) and all(_is_of(each, int) for each in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (int, str, bool):
        return type(value) is kind
    return any(  # an optional field
        value is None
        if each is type(None)
        else isinstance(value, getattr(each, "__origin__", each))
        for each in get_args(kind)
    )


def _check_facts(file: Path, config: Mapping[str, Any], num_classes: int) -> None:
    classes, ids = config.get("classes"), config.get("category_ids")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{file}: 'classes' is not a list of names; save the run again")
    if len(classes) != num_classes:
        raise InputError(
            f"{file}: 'classes' has {len(classes)} names, but num_classes is {num_classes}"
        )
    if ids is not None and not (
        isinstance(ids, list)
        and len(ids) == num_classes
        and all(type(each) is int and abs(each) < 2**63 for each in ids)
        and len({*ids, -1}) == len(ids) - ids.count(-1) + 1  # -1 is not an id
    ):
        raise InputError(
            f"{file}: 'category_ids' is not a list of {num_classes} different whole numbers"
        )
    size = config.get("image_size", IMAGE_SIZES[0])
    if type(size) is not int or size not in IMAGE_SIZES:
        raise InputError(
            f"{file}: image_size {size!r} is not a whole number from {IMAGE_SIZES[0]} "
            f"to {IMAGE_SIZES[-1]}"
        )
    threshold = config.get("threshold", 0.0)
    if not _is_of(threshold, float) or not 0 <= threshold <= 1:
        raise InputError(f"{file}: threshold {threshold!r} is not a number from 0 to 1")


__all__ = [
    "CONFIG",
    "WEIGHTS",
    "build_detector",
    "load_detector",
    "load_weights",
    "read_config",
    "save_detector",
]
