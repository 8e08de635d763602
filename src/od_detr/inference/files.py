"""Detections of many image files: drawn copies, and one JSON file in COCO's result format."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from PIL import Image

from od_detr.data.formats.choices import Choices
from od_detr.data.formats.coco_layout import coco_readers
from od_detr.errors import InputError
from od_detr.evaluation.coco import detections_to_coco
from od_detr.inference.predictor import Predictor
from od_detr.inference.sources import drawn_names, find_images, pixels_of

DETECTIONS = "detections.json"
PARENTS = 3  # a data set's folder is at most this far above its images


def predict_files(
    predictor: Predictor, sources: Sequence[str], output: Path, threshold: float | None = None
) -> dict[str, Any]:
    """Draws the detections of every image and writes them all to `detections.json`.

    Each row has COCO's `image_id`, `category_id`, `bbox` (x, y, width, height in pixels) and
    `score`, and `file_name` and `category`. Where all images belong to one split of a COCO data
    set, `image_id` is the split's, so that pycocotools scores the file; otherwise it is the path.
    An unreadable image is reported and skipped. Rows are written as they are found; after Ctrl-C
    the file is still valid JSON.

    Returns:
        Numbers of `images` and `detections`, the `output`, and the files that were `skipped`.
    """
    files = find_images(sources)
    names = drawn_names(files)
    _check_output(output, names, files)
    output.mkdir(parents=True, exist_ok=True)
    ids = split_ids(files)
    skipped: list[str] = []
    with json_rows(output / DETECTIONS) as rows:
        for file, name in zip(files, names, strict=True):
            try:
                pixels = pixels_of(file)
            except InputError as error:
                print(f"skipped: {error}", file=sys.stderr)
                skipped.append(str(file))
                continue
            rows += _detected(predictor, file, pixels, threshold, output / name, ids)
        count = rows.count
    images = len(files) - len(skipped)
    return {"images": images, "detections": count, "output": str(output), "skipped": skipped}


def _detected(
    predictor: Predictor,
    file: Path,
    pixels: Any,
    threshold: float | None,
    drawn: Path,
    ids: dict[Path, int],
) -> list[dict[str, Any]]:
    """Draws one image and returns its rows."""
    from od_detr.reporting.drawing import draw

    detections = predictor.predict_one(pixels, threshold)
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    draw(picture, detections, predictor.classes).save(drawn)
    named = {"image_id": ids.get(file.resolve(), str(file)), "file_name": str(file)}
    return [
        row
        | named
        | {
            "category_id": predictor.category_ids[row["category_id"]],
            "category": predictor.classes[row["category_id"]],
        }
        for row in detections_to_coco(detections, 0)
    ]


def split_ids(files: Sequence[Path]) -> dict[Path, int]:
    """The COCO image id of each resolved file, where one split of a data set around them has all.

    Empty where there is no such split.
    """
    wanted = {file.resolve() for file in files}
    folder = min(wanted).parent
    for root in [folder, *folder.parents][: PARENTS + 1]:
        try:
            splits = [read() for read in coco_readers(root, Choices()).values()]
        except InputError:
            continue  # no data set here: its ids are only an addition
        for split in splits:
            places = [Path(path).resolve() if path else None for path in split.paths]
            ids = dict(zip(places, split.image_ids.tolist(), strict=True))
            if wanted <= ids.keys():
                return {path: identity for path, identity in ids.items() if path is not None}
    return {}


def _check_output(output: Path, names: Sequence[str], files: Sequence[Path]) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; give a folder")
    originals = {file.resolve() for file in files}
    for name in names:
        if (output / name).resolve() in originals:
            raise InputError(
                f"{output / name}: is one of the images and would be overwritten; "
                "give another --output"
            )


class Rows:
    """A JSON array that is written row by row."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.count = file, 0

    def __iadd__(self, rows: list[dict[str, Any]]) -> Rows:
        for row in rows:
            self.file.write((",\n " if self.count else "\n ") + json.dumps(row))
            self.count += 1
        self.file.flush()
        return self


@contextmanager
def json_rows(path: Path) -> Iterator[Rows]:
    """A JSON array at `path` to add rows to. It is closed, and so valid, whatever happens."""
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        try:
            yield Rows(file)
        finally:
            file.write("\n]\n")
