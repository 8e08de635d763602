"""Detections of many images and videos, written as they are found."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from od_detr.data.formats.choices import Choices
from od_detr.data.formats.coco_layout import coco_readers
from od_detr.errors import InputError
from od_detr.files import as_text, writing
from od_detr.inference.outputs.coco import CocoResults
from od_detr.inference.outputs.crops import Crops
from od_detr.inference.outputs.labels import YoloLabels
from od_detr.inference.outputs.output import Found, Output
from od_detr.inference.outputs.pictures import Pictures
from od_detr.inference.outputs.table import Table
from od_detr.inference.outputs.videos import Videos, video_name
from od_detr.inference.predictor import Predictor, labels_of, of_classes
from od_detr.inference.progress import with_bar
from od_detr.inference.sources import find_media, pixels_of, unique_stems
from od_detr.inference.videos import (
    Frame,
    frames_of,
    frames_of_camera,
    is_camera,
    is_video,
    number_of_frames,
)

DETECTIONS = "detections.json"
PARENTS = 3  # a data set's folder is at most this far above its images


@dataclass(frozen=True)
class Wanted:
    """What `predict_files` is to find and to write besides drawn copies and `detections.json`.

    Attributes:
        threshold: lowest score; None takes the detector's own.
        classes: names of the classes to keep; None keeps all.
        batch_size: most images that are computed together.
        csv: whether to write `detections.csv`.
        yolo: whether to write YOLO labels.
        crops: whether to write each detection as a picture.
    """

    threshold: float | None = None
    classes: Sequence[str] | None = None
    batch_size: int = 4
    csv: bool = False
    yolo: bool = False
    crops: bool = False


def predict_files(
    predictor: Predictor, sources: Sequence[str], output: Path, wanted: Wanted | None = None
) -> dict[str, Any]:
    """Detects objects in images and videos, and writes drawn copies and `detections.json`.

    The rows of `detections.json` are COCO results, see `CocoResults`. Where all images belong to
    one split of a COCO data set, `image_id` is the split's, so that pycocotools scores the file;
    otherwise it is the path, in a video with the number of the frame.

    An unreadable image is reported and skipped, as is the rest of a video that cannot be read on.
    Everything is written as it is found; after Ctrl-C all files are valid.

    Args:
        predictor: the detector.
        sources: images, videos, folders and globs; or the number of a camera.
        output: folder to write.
        wanted: what to find and what to write; None takes the defaults.

    Returns:
        Numbers of `images` (frames count) and `detections`, the `output`, and the files that were
        `skipped`.

    Raises:
        InputError: a source, class or threshold that does not exist, an output that would
            overwrite a source, one with files that no earlier call wrote, or a full disk.
    """
    wanted = wanted or Wanted()
    labels = labels_of(wanted.classes, predictor.classes)
    threshold = predictor.chosen(wanted.threshold)
    skipped: list[str] = []
    media, total = _media(sources, output, skipped)
    _check_folder(output)
    images, remaining = 0, iter(with_bar(media, total))
    output.mkdir(parents=True, exist_ok=True)
    results = CocoResults(output / DETECTIONS, predictor.classes, predictor.category_ids)
    with ExitStack() as stack:
        outputs: list[Output] = []
        for each in chain([results], _outputs(output, predictor.classes, wanted)):
            outputs.append(stack.enter_context(_completed(each, output)))
        while chunk := list(islice(remaining, wanted.batch_size)):
            found = predictor.predict_all([each.pixels for each in chunk], threshold)
            images += len(chunk)
            with writing(output):
                for seen, detections in zip(chunk, found, strict=True):
                    kept = of_classes(detections, labels)
                    for each in outputs:
                        each.add(replace(seen, detections=kept))
    done = {"images": images, "detections": results.count, "output": str(output)}
    return done | {"skipped": skipped}


@contextmanager
def _completed(output: Output, folder: Path) -> Iterator[Output]:
    """Closes an output of this folder at the end of the block."""
    try:
        yield output
    finally:
        with writing(folder):
            output.close()


def _outputs(folder: Path, classes: Sequence[str], wanted: Wanted) -> Iterator[Output]:
    """The outputs besides `detections.json`."""
    yield Pictures(folder, classes)
    yield Videos(folder, classes)
    if wanted.csv:
        yield Table(folder / "detections.csv", classes)
    if wanted.yolo:
        yield YoloLabels(folder / "labels", classes)
    if wanted.crops:
        yield Crops(folder / "crops", classes)


# ---- what is to be looked at ---------------------------------------------------------------------


def _media(
    sources: Sequence[str], output: Path, skipped: list[str]
) -> tuple[Iterable[Found], int | None]:
    """Every image and frame, with nothing found yet, and how many there are, if that is known."""
    if len(sources) == 1 and is_camera(sources[0]):
        name = f"camera{sources[0]}"
        return _frames(Path(name), name, frames_of_camera(int(sources[0]))), None
    files = find_media(sources)
    names = unique_stems(files)
    _check_originals(output, names, files)
    counts = [number_of_frames(file) if is_video(file) else 1 for file in files]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    return _readable(files, names, skipped), total


def _readable(files: Sequence[Path], names: Sequence[str], skipped: list[str]) -> Iterator[Found]:
    """The images and frames of the files; what cannot be read is reported and `skipped`."""
    ids = split_ids(files)
    for file, name in zip(files, names, strict=True):
        try:
            if is_video(file):
                yield from _frames(file, name, frames_of(file))
            else:
                image_id = ids.get(file.resolve(), as_text(file))
                yield Found(file, name, pixels_of(file), _nothing(), image_id)
        except InputError as error:
            print(f"skipped: {error}", file=sys.stderr)
            skipped.append(as_text(file))


def _frames(file: Path, name: str, frames: Iterable[Frame]) -> Iterator[Found]:
    for number, frame in enumerate(frames):
        image_id = f"{as_text(file)}#{number}"
        yield Found(file, name, frame.pixels, _nothing(), image_id, number, frame.seconds)


def _nothing() -> Any:
    import supervision

    return supervision.Detections.empty()


def split_ids(files: Sequence[Path]) -> dict[Path, int]:
    """The COCO image id of each resolved file, where one split of a data set around them has all.

    Empty where there is no such split.
    """
    wanted = {file.resolve() for file in files}
    folder = min(wanted).parent
    for root in [folder, *folder.parents][: PARENTS + 1]:
        try:
            splits = [read() for read in coco_readers(root, Choices()).values()]
        except (InputError, OSError):
            continue  # no data set here, or a folder of others: its ids are only an addition
        for split in splits:
            places = [Path(path).resolve() if path else None for path in split.paths]
            ids = dict(zip(places, split.image_ids.tolist(), strict=True))
            if wanted <= ids.keys():
                return {path: identity for path, identity in ids.items() if path is not None}
    return {}


def _check_folder(output: Path) -> None:
    """Refuses a folder of the user, where labels or crops might replace others."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; give a folder")
    if (output / DETECTIONS).exists() or not output.exists():
        return
    strange = [each.name for each in output.iterdir() if not each.name.startswith(".")]
    if strange:
        raise InputError(
            f"--output {output}: holds {min(strange)} and no {DETECTIONS}, so predict did not "
            "write it; give a new or an empty folder"
        )


def _check_originals(output: Path, names: Sequence[str], files: Sequence[Path]) -> None:
    originals = {file.resolve() for file in files}
    for file, name in zip(files, names, strict=True):
        drawn = output / (video_name(file, name) if is_video(file) else f"{name}.jpg")
        if drawn.resolve() in originals:
            raise InputError(
                f"{drawn}: is one of the images and would be overwritten; give another --output"
            )
