"""One object, four verbs: what the command line does, from Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import supervision

    from od_detr.inference.predictor import Predictor


class Detector:
    """A trained detector.

    detector = Detector.from_pretrained("runs/x/best")
    detections = detector.predict("street.jpg")
    figures = detector.evaluate("data")
    better = detector.fit("more data", output="runs/y", epochs=24)
    """

    def __init__(self, directory: Path, predictor: Predictor) -> None:
        self.directory, self.predictor = directory, predictor

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: str = "auto") -> Detector:
        """From the directory of a run, or the best/ folder in it."""
        from od_detr.inference.predictor import Predictor

        return cls(Path(directory), Predictor.from_run(Path(directory), device=device))

    def fit(self, data: str | Path, **options: Any) -> Detector:
        """Fine-tunes on a folder of images and annotations and returns the detector that came out best.

        Takes the options of `od-detr train` by their Python names; the host stays, and the image size unless given.
        """
        from od_detr.options import TrainOptions
        from od_detr.training.fit import fit

        kept = {
            "model": self.predictor.detector.settings["model"],
            "image_size": self.predictor.transform.image_size,
        }
        run = fit(TrainOptions(data=str(data), init=str(self.directory), **kept | options))
        return self.from_pretrained(run.directory)

    @property
    def classes(self) -> Sequence[str]:
        return self.predictor.classes

    def predict(
        self, source: Any, threshold: float = 0.3, batch_size: int = 4
    ) -> supervision.Detections | list[supervision.Detections] | Iterator[supervision.Detections]:
        """Detects objects in whatever shows something.

        Args:
            source: a path, a PIL image, an RGB array (height, width, 3) of uint8, an RGB tensor
                (3, height, width) of uint8 or of floats from 0 to 1; a list of these; a folder or
                a glob. OpenCV reads BGR: turn it with `image[..., ::-1]`.
            threshold: lowest score that is returned, from 0 to 1.
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
        """The 12 COCO figures and `per_class` AP on a folder of images and annotations."""
        from od_detr.inference.evaluate import evaluate_run

        return evaluate_run(self.directory, Path(data), split, **options)
