"""Opens a trained detector: from a run, a folder, a checkpoint, or the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from od_detr.detectors import DetectionTransformer, load_detector
from od_detr.errors import InputError
from od_detr.files import read_json
from od_detr.integrations.weights.convert import converted
from od_detr.integrations.weights.hub import ON_COCO, as_source, downloaded, is_hub_name
from od_detr.run_files import (
    DETECTOR_CONFIG,
    WEIGHTS,
    RunFiles,
    is_saved_detector,
    saved_detector,
)


def open_weights(source: str | Path) -> tuple[DetectionTransformer, dict[str, Any]]:
    """Loads the detector in `source`, in eval mode on the CPU, with its configuration.

    Args:
        source: the folder of a run or of a saved detector; a Hugging Face folder; a checkpoint of
            the official code or of detrex; or `hf:OWNER/NAME`, a repository of the Hugging Face hub
            that holds one of them.

    Returns:
        The detector, and its configuration as `load_detector` gives it: `classes`,
        `category_ids`, `image_size` and more.

    Raises:
        InputError: `source` holds no detector, or cannot be read or downloaded.
    """
    path = downloaded(str(source)) if is_hub_name(str(source)) else Path(source)
    if not path.exists():
        if "://" in str(source):
            raise InputError(f"{source}: addresses are not opened; download the file and give it")
        named = as_source(source)
        hub = named if is_hub_name(named) else f"one such as {ON_COCO} (trained on COCO)"
        raise InputError(
            f"{source}: no such file or directory; give a run, a saved detector, a checkpoint, or "
            f"for a Hugging Face repository {hub}"
        )
    if path.name == WEIGHTS and is_saved_detector(path.parent):
        path = path.parent
    if path == RunFiles(path.parent).last:
        raise InputError(
            f"{path}: is for continuing a training; give its run, {path.parent}, with --weights "
            "online or teacher for the last weights"
        )
    if path.is_dir() and not _is_hugging_face(path):
        return load_detector(saved_detector(path))
    done = converted(path)
    settings = {"detector": done.detector.settings, "classes": done.classes}
    return done.detector, settings | done.facts


def _is_hugging_face(directory: Path) -> bool:
    """Whether the folder has a configuration written by Hugging Face transformers."""
    file = directory / DETECTOR_CONFIG
    if not file.is_file():
        return False
    return "model_type" in read_json(file, "configuration of a detector", "save it again")
