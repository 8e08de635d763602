"""A trained detector that is ready to predict."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from numbers import Real
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from jaxtyping import UInt8
from torch import Tensor

from od_detr.checkpoints import load_checkpoint
from od_detr.data.loading.batching import collate
from od_detr.data.transforms import Sample, Transform
from od_detr.detectors import (
    Detections,
    DetectionTransformer,
    check_compiles,
    compile_backbone,
    load_weights,
)
from od_detr.errors import InputError
from od_detr.evaluation.analysis import DEFAULT_THRESHOLD
from od_detr.inference.precision import choose_precision, computing, prepare
from od_detr.inference.progress import with_bar
from od_detr.inference.sources import find_images, is_collection, pixels_of
from od_detr.inference.videos import (
    frames_of,
    frames_of_camera,
    is_camera,
    is_video,
    number_of_frames,
)
from od_detr.integrations.weights.opening import open_weights
from od_detr.machine.devices import choose_device
from od_detr.options.names import nearest
from od_detr.run_files import RunFiles
from od_detr.structures import Batch

if TYPE_CHECKING:
    import supervision

DEFAULT_SIZE = 800


class Predictor:
    """A detector with its class names and the image size it was trained at.

    Args:
        detector: copied, and made ready by `od_detr.inference.precision.prepare`.
        classes: class names by label.
        category_ids: COCO category of each label; 1, 2, ... by default.
        image_size: short side of the images in pixels.
        precision: auto, 32 or bf16.
        compile: whether torch.compile translates the backbone, on a GPU.
        threshold: lowest score that `predict` returns by default; None takes 0.3.
    """

    def __init__(
        self,
        detector: DetectionTransformer,
        classes: Sequence[str],
        category_ids: Sequence[int] | None = None,
        image_size: int = DEFAULT_SIZE,
        precision: str = "auto",
        compile: bool = False,
        threshold: float | None = None,
    ) -> None:
        self.threshold = DEFAULT_THRESHOLD if threshold is None else threshold
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
        source: str | Path,
        weights: str = "best",
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
    ) -> Predictor:
        """From a run, or from anything that `open_weights` takes.

        The threshold is the one with the highest F1 on the validation set, where the run measured
        one.

        Args:
            source: the run, or the detector.
            weights: best, or "online" or "teacher" for those of a run's last epoch.
            device: auto, cpu, cuda, cuda:0 or mps.
            precision: auto, 32 or bf16.
            compile: whether torch.compile translates the backbone, on a GPU.

        Raises:
            InputError: there is no detector, or the device is not present.
        """
        detector, config = open_run(source, weights)
        size = config.get("image_size", DEFAULT_SIZE)
        detector = detector.to(choose_device(device))
        return cls(
            detector,
            config["classes"],
            config.get("category_ids"),
            size,
            precision,
            compile,
            config.get("threshold"),
        )

    @torch.inference_mode()
    def detect(self, batch: Batch) -> Detections:
        """The best detections of a batch of any number of images, on the device."""
        with computing(self.precision, self.device):
            return self.detector.detect(batch.to(self.device))

    def predict(
        self,
        source: Any,
        threshold: float | Literal["auto"] | None = None,
        batch_size: int = 4,
        classes: Sequence[str] | None = None,
    ) -> supervision.Detections | list[supervision.Detections] | Iterator[supervision.Detections]:
        """Detections, best first, with scores, class ids, and class names in `.data`.

        Boxes are xyxy in pixels, clipped to the image.

        Images of one size are computed together, so padding never changes a detection. Threads may
        share a predictor; each gets the results of its own images. Where there is more than one
        batch, a terminal shows a bar.

        Args:
            source: an image as `od_detr.inference.sources.pixels_of` takes it, a list or a batch
                (four axes) of images, a folder, a glob, a video, or the number of a camera.
            threshold: lowest score that is returned, from 0 to 1; "auto" or None takes the
                detector's own.
            batch_size: most images that are computed together.
            classes: names of the classes to return; None returns all.

        Returns:
            Detections of an image, a list of them for a list or a batch, and a generator for the
            frames of a video or camera, or for a folder or a glob in the order of file names. Those
            of a folder have the file in `.metadata["path"]`; a file that cannot be read is named on
            standard error, and its empty result has the reason in `.metadata["error"]`.

        Raises:
            InputError: an image that cannot be read, an address, a threshold out of range, or a
                class that the detector does not know.
        """
        labels = labels_of(classes, self.classes)
        found = self._found(source, self.chosen(threshold), batch_size)
        if isinstance(found, Iterator):
            return (of_classes(each, labels) for each in found)
        if isinstance(found, list):
            return [of_classes(each, labels) for each in found]
        return of_classes(found, labels)

    def _found(
        self, source: Any, threshold: float, batch_size: int
    ) -> supervision.Detections | list[supervision.Detections] | Iterator[supervision.Detections]:
        """What `predict` returns, of all classes."""
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size must be a whole number from 1 on (got {batch_size!r})")
        if is_video(source):
            frames = (frame.pixels for frame in frames_of(source))
            return self._batched(frames, number_of_frames(source), threshold, batch_size)
        if is_camera(source):
            frames = (frame.pixels for frame in frames_of_camera(int(source)))
            return self._batched(frames, None, threshold, 1)
        if isinstance(source, list | tuple) or getattr(source, "ndim", 0) == 4:
            return list(self._batched(source, len(source), threshold, batch_size))
        if is_collection(source):
            return self._of_files(find_images([str(source)]), threshold, batch_size)
        return self.predict_all([pixels_of(source)], threshold)[0]

    def predict_all(
        self, images: Sequence[Tensor], threshold: float | None = None
    ) -> list[supervision.Detections]:
        """Detections of the pixels of some RGB images; those of one size are computed together.

        Args:
            images: RGB, uint8, (3, height, width); each may have another size. All of them are held
                in memory together.
            threshold: as in `predict`.
        """
        threshold = self.chosen(threshold)
        samples = [self._sample(pixels) for pixels in images]
        alike: dict[torch.Size, list[int]] = {}
        for place, sample in enumerate(samples):
            alike.setdefault(sample.image.shape, []).append(place)
        found: dict[int, supervision.Detections] = {}
        for places in alike.values():
            results = self._predict_alike([samples[place] for place in places], threshold)
            found.update(zip(places, results, strict=True))
        return [found[place] for place in range(len(samples))]

    def chosen(self, threshold: float | Literal["auto"] | None) -> float:
        """The threshold that was given, checked, or the detector's own.

        Raises:
            InputError: it is not a number from 0 to 1.
        """
        if threshold is None or threshold == "auto":
            return self.threshold
        check_threshold(threshold)
        return float(threshold)

    def _batched(
        self, images: Iterable[Any], total: int | None, threshold: float, batch_size: int
    ) -> Iterator[supervision.Detections]:
        several = total is None or total > batch_size
        remaining = iter(with_bar(images, total) if several else images)
        while chunk := list(islice(remaining, batch_size)):
            yield from self.predict_all([pixels_of(image) for image in chunk], threshold)

    def _of_files(
        self, files: Sequence[Path], threshold: float, batch_size: int
    ) -> Iterator[supervision.Detections]:
        import supervision

        remaining = iter(with_bar(files, len(files)) if len(files) > batch_size else files)
        while chunk := list(islice(remaining, batch_size)):
            images = [_pixels_or_error(file) for file in chunk]
            read = [image for image in images if not isinstance(image, InputError)]
            found = iter(self.predict_all(read, threshold))
            for file, image in zip(chunk, images, strict=True):
                broken = isinstance(image, InputError)
                detections = supervision.Detections.empty() if broken else next(found)
                detections.metadata["path"] = str(file)
                if broken:
                    detections.metadata["error"] = str(image)
                yield detections

    def _sample(self, pixels: UInt8[Tensor, "3 H W"]) -> Sample:
        size = (pixels.shape[1], pixels.shape[2])
        nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
        return self.transform(Sample(pixels, *nothing, 0, size), Random(0))

    def _predict_alike(
        self, samples: Sequence[Sample], threshold: float
    ) -> list[supervision.Detections]:
        """Detections of images that have the same size after the transform."""
        found = self.detect(collate(list(samples)))
        return [
            self._detections(found, place, sample.size, threshold)
            for place, sample in enumerate(samples)
        ]

    def _detections(
        self, found: Detections, place: int, size: tuple[int, int], threshold: float
    ) -> supervision.Detections:
        import numpy as np

        kept = found.scores[place] >= threshold
        labels = found.labels[place][kept].cpu().numpy()
        boxes = found.boxes_xyxy[place][kept].float().cpu().numpy()
        height, width = size
        import supervision

        return supervision.Detections(
            xyxy=boxes.clip(0, np.array([width, height, width, height], dtype=boxes.dtype)),
            confidence=found.scores[place][kept].float().cpu().numpy(),
            class_id=labels,
            data={"class_name": np.array([self.classes[label] for label in labels], dtype=str)},
        )


def labels_of(names: Sequence[str] | None, classes: Sequence[str]) -> list[int] | None:
    """The class ids of some class names; None for None.

    Raises:
        InputError: a name that the detector does not know.
    """
    for name in map(str, names or ()):
        if name not in classes:
            near = nearest(name, classes)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(classes[:20])}"
            raise InputError(f"classes {name}: the detector has no such class; {hint}")
    return None if names is None else [classes.index(name) for name in names]


def of_classes(
    detections: supervision.Detections, labels: Sequence[int] | None
) -> supervision.Detections:
    """The detections of these class ids; None keeps all."""
    import numpy as np

    if labels is None or detections.class_id is None:
        return detections
    return cast("supervision.Detections", detections[np.isin(detections.class_id, labels)])


def _pixels_or_error(file: Path) -> UInt8[Tensor, "3 H W"] | InputError:
    try:
        return pixels_of(file)
    except InputError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return error


def check_threshold(threshold: float) -> None:
    """Refuses a score that no detection can have.

    Raises:
        InputError: `threshold` is not a number from 0 to 1.
    """
    number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold <= 1:
        raise InputError(f"threshold {threshold!r}: must be a number from 0 to 1, or auto")


def open_run(
    source: str | Path, weights: str = "best"
) -> tuple[DetectionTransformer, dict[str, Any]]:
    """The detector of a run with the weights asked for, and its configuration.

    Args:
        source: the run, or anything that `open_weights` takes.
        weights: best, or "online" or "teacher" for those of a run's last epoch.

    Raises:
        InputError: there is no detector, or the run has no such weights.
    """
    detector, config = open_weights(source)
    if weights == "best":
        return detector, config
    files = RunFiles.of(source)
    if not files.is_saved:
        raise InputError(
            f"{files.last}: not there, so the last {weights} weights are unknown; use --weights "
            "best"
        )
    checkpoint = load_checkpoint(files)
    if checkpoint.notice:
        print(checkpoint.notice, file=sys.stderr)
    state, last = checkpoint.contents["state_dict"], checkpoint.file
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
