"""Where a data set keeps its annotations and its images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from od_detr.errors import InputError

Split = Literal["train", "val", "test"]


def find_split(data: Path, split: Split) -> tuple[Path, Path]:
    """Finds the annotation file and the image folder of one split of a data set in COCO layout.

    Known layouts below `data`, the first one present being taken (`*` is empty or a year, as in ``train2017``):

    - ``train.json`` or ``instances_train*.json``,
    - ``annotations/instances_train*.json`` or ``annotations/train.json``,
    - ``train/_annotations.coco.json`` as Roboflow exports it, its validation split being called ``valid``.

    The images lie beside Roboflow's file, else in the first folder present of ``images/train2017``,
    ``train2017``, ``images/train``, ``train``, ``images``, else in `data` itself.

    Raises:
        InputError: `data` is no folder, holds no such file, or holds several that are equally good.
    """
    data = Path(data)
    if not data.is_dir():
        raise InputError(
            f"{data}: {'is a file' if data.exists() else 'no such folder'}; give the data set's folder"
        )
    names = (split, "valid") if split == "val" else (split,)
    patterns = [
        pattern
        for name in names
        for pattern in (
            f"{name}.json",
            f"instances_{name}*.json",
            f"annotations/instances_{name}*.json",
            f"annotations/{name}.json",
            f"{name}/_annotations.coco.json",
        )
    ]
    for pattern in patterns:
        found = sorted(path for path in data.glob(pattern) if path.is_file())
        if len(found) > 1:
            raise InputError(
                f"{data}: {' and '.join(path.name for path in found)} could both be the {split} split; keep one of them"
            )
        if found:
            return found[0], _image_folder(data, found[0], names)
    raise InputError(f"{data}: no {split} split in COCO layout; looked for {', '.join(patterns)}")


def _image_folder(data: Path, annotation_file: Path, names: tuple[str, ...]) -> Path:
    if annotation_file.name == "_annotations.coco.json":
        return annotation_file.parent
    stems = dict.fromkeys((annotation_file.stem.removeprefix("instances_"), *names))
    places = [place for stem in stems for place in (f"images/{stem}", stem)]
    return next((data / place for place in (*places, "images") if (data / place).is_dir()), data)
