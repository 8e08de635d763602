"""What the command line does, from Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import supervision

    from od_detr.inference.predictor import Predictor


class Detector:
    """A trained detector.

    Example:
        detector = Detector.from_pretrained("runs/x/best")
        detections = detector.predict("street.jpg")
        metrics = detector.evaluate("data")
        better = detector.fit("more data", output="runs/y", epochs=24)
    """

    def __init__(self, directory: Path, predictor: Predictor) -> None:
        self.directory, self.predictor = directory, predictor

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: str = "auto") -> Detector:
        """The detector of a run.

        Args:
            directory: folder of the run, or the `best/` folder in it.
            device: auto, cpu, cuda or mps.

        Raises:
            InputError: the folder holds no detector.
        """
        from od_detr.inference.predictor import Predictor

        return cls(Path(directory), Predictor.from_run(Path(directory), device=device))

    def fit(self, data: str | Path, **options: Any) -> Detector:
        """Fine-tunes the detector and returns the best one of the run.

        Args:
            data: folder with images and COCO annotations.
            **options: options of `od-detr train`, checked as on the command line: `epochs=12`,
                `opt={"lr": 1e-4}` or `opt_lr=1e-4`. The architecture is that of this detector, and
                so is the image size unless it is given.

        Raises:
            InputError: an option or the data is wrong; the message is one line.
        """
        from od_detr.options import TrainOptions, from_values
        from od_detr.training.fit import fit

        kept = {
            "data": data,
            "init": self.directory,
            "model": self.predictor.detector.settings["model"],
            "image_size": self.predictor.transform.image_size,
        }
        run = fit(from_values(TrainOptions, kept | options))
        return self.from_pretrained(run.directory)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, by class id."""
        return self.predictor.classes

    def predict(
        self, source: Any, threshold: float | None = None, batch_size: int = 4
    ) -> supervision.Detections | list[supervision.Detections] | Iterator[supervision.Detections]:
        """Detects objects in whatever shows something.

        Args:
            source: a path, a PIL image, an RGB array (height, width, 3) of uint8, an RGB tensor
                (3, height, width) of uint8 or of floats from 0 to 1; a list of these; a folder or
                a glob. OpenCV reads BGR: turn it with `image[..., ::-1]`.
            threshold: lowest score that is returned, from 0 to 1. None takes the one with the
                highest F1 on the validation set of the run, or 0.3 if none was measured.
            batch_size: most images that are computed together.

        Returns:
            supervision.Detections, best first: pixel xyxy inside the image, scores, class ids, class
            names in `.data["class_name"]`. A list of them for a list, a generator for a folder or glob.

        Raises:
            InputError: an image that cannot be read, an address, or a threshold out of range.
        """
        return self.predictor.predict(source, threshold, batch_size)

    def evaluate(
        self, data: str | Path, split: Literal["train", "val", "test"] = "val", **options: Any
    ) -> dict[str, Any]:
        """The 12 COCO metrics by name, `per_class` AP, and what a threshold gives.

        See `od_detr.evaluation.analysis.analysed` for all keys. It adds the `confusion` matrix.

        Args:
            data: folder with images and COCO annotations.
            split: part of the data.
            **options: arguments of `od_detr.inference.evaluate.evaluate_run`.
        """
        from od_detr.inference.evaluate import evaluate_run

        return evaluate_run(self.directory, Path(data), split, **options)
