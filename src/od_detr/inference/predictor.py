"""A trained detector ready to look at pictures."""

from __future__ import annotations

import glob
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from od_detr.data.batching import collate
from od_detr.data.images import read_image
from od_detr.data.transforms import Sample, Transform
from od_detr.detectors import (
    Detections,
    DetectionTransformer,
    check_compiles,
    compile_backbone,
    load_detector,
    load_weights,
)
from od_detr.devices import choose_device
from od_detr.errors import InputError
from od_detr.inference.precision import choose_precision, computing, prepare
from od_detr.run_files import RunFiles, saved_detector
from od_detr.structures import Batch

if TYPE_CHECKING:
    import supervision

DEFAULT_SIZE = 800
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Predictor:
    """A detector with its class names and the image size it was trained at.

    `detector` is copied and made ready by `od_detr.inference.precision.prepare`; `precision` is auto, 32 or bf16,
    and `compile` has torch.compile translate the backbone, on a GPU.
    """

    def __init__(
        self,
        detector: DetectionTransformer,
        classes: Sequence[str],
        category_ids: Sequence[int] | None = None,
        image_size: int = DEFAULT_SIZE,
        precision: str = "auto",
        compile: bool = False,
    ) -> None:
        self.device = next(detector.parameters()).device
        self.precision = choose_precision(precision, self.device)
        self.detector, self.classes = prepare(detector, self.precision), list(classes)
        if compile:
            check_compiles(self.device.type)
            compile_backbone(self.detector)
        self.category_ids = list(category_ids or range(1, len(classes) + 1))
        self.transform = Transform(image_size, "none")

    @classmethod
    def from_run(
        cls,
        run: Path,
        weights: str = "best",
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
    ) -> Predictor:
        """From a run's directory or a saved detector; `weights` "online" and "teacher" are the last epoch's."""
        detector, config = open_run(run, weights)
        size = config.get("image_size", DEFAULT_SIZE)
        detector = detector.to(choose_device(device))
        return cls(
            detector, config["classes"], config.get("category_ids"), size, precision, compile
        )

    @torch.inference_mode()
    def detect(self, batch: Batch) -> Detections:
        """The best detections of a batch of any number of images, on the device."""
        with computing(self.precision, self.device):
            return self.detector.detect(batch.to(self.device))

    def predict(self, image: Path | str, threshold: float = 0.3) -> supervision.Detections:
        """Detections of one image file, best first: pixel xyxy, scores, class ids, class names in `.data`."""
        import numpy as np

        supervision = _supervision()
        pixels = read_image(Path(image))
        size = (pixels.shape[1], pixels.shape[2])
        sample = Sample(pixels, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 0, size)
        found = self.detect(collate([self.transform(sample, Random(0))]))
        kept = found.scores[0] >= threshold
        labels = found.labels[0][kept].cpu().numpy()
        return supervision.Detections(
            xyxy=found.boxes_xyxy[0][kept].float().cpu().numpy(),
            confidence=found.scores[0][kept].float().cpu().numpy(),
            class_id=labels,
            data={"class_name": np.array([self.classes[label] for label in labels], dtype=str)},
        )

    def predict_files(
        self, sources: Sequence[str], output: Path, threshold: float = 0.3
    ) -> dict[str, Any]:
        """Draws the detections of every image and writes them all to `detections.json` in COCO's result format.

        There an image is named by its file, since it has no id.
        """
        from PIL import Image

        from od_detr.evaluation.coco import detections_to_coco

        _supervision()
        from od_detr.inference.drawing import draw

        files = find_images(sources)
        names = drawn_names(files)
        if output.exists() and not output.is_dir():
            raise InputError(f"--output {output}: is a file; give a folder")
        originals = {file.resolve() for file in files}
        for name in names:
            if (output / name).resolve() in originals:
                raise InputError(
                    f"{output / name}: is one of the images and would be drawn over; give another --output"
                )
        output.mkdir(parents=True, exist_ok=True)
        results: list[dict[str, Any]] = []
        for file, name in zip(files, names, strict=True):
            detections = self.predict(file, threshold)
            pixels = read_image(file).permute(1, 2, 0).contiguous().numpy()
            draw(Image.fromarray(pixels), detections, self.classes).save(output / name)
            for row in detections_to_coco(detections, 0):
                label = row["category_id"]
                named = {
                    "image_id": str(file),
                    "category_id": self.category_ids[label],
                    "category": self.classes[label],
                }
                results.append(row | named)
        (output / "detections.json").write_text(json.dumps(results, indent=1) + "\n")
        return {"images": len(files), "detections": len(results), "output": str(output)}


def _supervision() -> ModuleType:
    """supervision, imported when first needed and without its advice to install OpenCV, which nothing here asks for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*OpenCV.*")
        import supervision
    return supervision


def open_run(run: Path, weights: str = "best") -> tuple[DetectionTransformer, dict[str, Any]]:
    """The detector of a run with the weights asked for, and its configuration."""
    if not run.is_dir():
        raise InputError(f"{run}: no such directory; give the --output of od-detr train")
    detector, config = load_detector(saved_detector(run))
    if weights == "best":
        return detector, config
    last = RunFiles.of(run).last
    if not last.is_file():
        raise InputError(
            f"{last}: not there, so the last {weights} weights are unknown; use --weights best"
        )
    try:
        state = torch.load(last, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # torch.load raises half a dozen unrelated types for a damaged file
        raise InputError(f"{last}: cannot be read as a checkpoint; use --weights best") from error
    prefixes = {
        "online": ["detector."],
        "teacher": ["teacher.evaluation.detector.", "teacher.average.detector."],
    }
    for prefix in prefixes[weights]:
        found = {
            key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)
        }
        if found:
            load_weights(detector, found, last)
            return detector, config
    raise InputError(f"{last}: holds no {weights} weights; use --weights best or online")


def find_images(sources: Sequence[str]) -> list[Path]:
    """Image files named by files, folders and globs, each once, in order."""
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not found:
                raise InputError(f"{source}: holds no image; known are {', '.join(SUFFIXES)}")
        else:
            found = (
                [path]
                if path.is_file()
                else [Path(name) for name in sorted(glob.glob(source, recursive=True))]
            )
            if not found:
                raise InputError(f"{source}: no such file, folder or glob; give images to look at")
        files += [file for file in found if file.is_file()]
    return list(dict.fromkeys(files))


def drawn_names(files: Sequence[Path]) -> list[str]:
    """A name for each drawn copy; files of one name get a number."""
    names: dict[str, None] = {}  # a set in the order of the files
    last: dict[
        str, int
    ] = {}  # the number a stem came to: the next copy need not try them all again
    for file in files:
        name = f"{file.stem}.jpg"
        while name in names:
            last[file.stem] = last.get(file.stem, 1) + 1
            name = f"{file.stem}-{last[file.stem]}.jpg"
        names[name] = None
    return list(names)
