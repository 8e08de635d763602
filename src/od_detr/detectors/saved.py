"""A detector on disk: `model.safetensors` and a `config.json` that says how to build it and what it detects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from od_detr.architectures import ARCHITECTURES
from od_detr.detectors.transformer import DetectionTransformer
from od_detr.errors import InputError
from od_detr.files import atomic_write
from od_detr.run_files import DETECTOR_CONFIG as CONFIG
from od_detr.run_files import WEIGHTS


def build_detector(model: str, num_classes: int, **sizes: Any) -> DetectionTransformer:
    """The architecture called `model` (a name of the command line) with the sizes of its builder; None keeps a default."""
    from od_detr import detectors

    if model not in ARCHITECTURES:
        raise InputError(f"--model {model}: no such detector; known are {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[model]
    arguments = architecture.arguments | {
        key: value for key, value in sizes.items() if value is not None
    }
    detector = getattr(detectors, architecture.builder)(num_classes, **arguments)
    detector.settings["model"] = (
        model  # which of its names it goes by, whatever its number of levels
    )
    return detector


def save_detector(
    detector: DetectionTransformer, directory: Path, classes: list[str], **facts: Any
) -> None:
    """Writes weights and configuration; each file appears whole or not at all.

    `facts` are kept in the configuration beside the architecture (category ids, image size, AP, which weights won).
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()
    }
    config = {"detector": detector.settings, "classes": classes, **facts}
    with atomic_write(directory / WEIGHTS) as partial:
        save_file(weights, partial, metadata={"format": "pt"})
    with atomic_write(directory / CONFIG) as partial:
        partial.write_text(json.dumps(config, indent=2) + "\n")


def load_detector(directory: Path) -> tuple[DetectionTransformer, dict[str, Any]]:
    """The detector saved in `directory`, in eval mode, and its configuration.

    Raises:
        InputError: no such directory, a file that cannot be read, or weights of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise InputError(
                f"{directory}: has no {name}; give the best/ folder of a run, or the run itself"
            )
    try:
        config = json.loads((directory / CONFIG).read_text())
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in config["detector"].items()
        }
        model, num_classes = settings.pop("model"), settings.pop("num_classes")
        if len(config["classes"]) != num_classes:
            raise ValueError(f"{len(config['classes'])} class names for {num_classes} classes")
        detector = build_detector(model, num_classes, **settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{directory / CONFIG}: not a detector's configuration ({reason}); save the run again"
        ) from error
    try:
        weights = load_file(directory / WEIGHTS)
    except SafetensorError as error:
        raise InputError(
            f"{directory / WEIGHTS}: cannot be read ({error}); the file is damaged, save it again"
        ) from error
    load_weights(detector, weights, directory / WEIGHTS)
    return detector.eval(), config


def load_weights(detector: DetectionTransformer, weights: dict[str, Any], source: Path) -> None:
    """Loads a complete state dict; names the first tensor that is missing, superfluous or of another shape."""
    expected = detector.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise InputError(
                f"{source}: has no '{name}'; these are weights of another architecture"
            )
        if name not in expected:
            raise InputError(
                f"{source}: '{name}' belongs to another architecture; give the matching config.json"
            )
        if weights[name].shape != expected[name].shape:
            raise InputError(
                f"{source}: '{name}' is {tuple(weights[name].shape)}, the configuration says "
                f"{tuple(expected[name].shape)}; give the matching config.json"
            )
    detector.load_state_dict(weights)
