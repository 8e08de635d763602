"""`Detector`: training, prediction and evaluation from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import supervision

    from od_detr.inference.predictor import Predictor


# Arguments of other packages that are ours under another name.
SYNONYMS = {"conf": "threshold", "confidence": "threshold", "batch": "batch_size"}
METHODS = {"train": "fit", "val": "evaluate", "load": "from_pretrained", "save": "save_pretrained"}


def train(data: str | Path, **options: Any) -> Detector:
    """Trains a new detector and returns the best one of the run.

    Args:
        data: folder of labelled images in COCO, YOLO or Pascal VOC layout.
        **options: options of `od-detr train`, checked as on the command line: `output="runs/x"`,
            `epochs=12`, `opt={"lr": 1e-4}` or `opt_lr=1e-4`.

    Example:
        detector = od_detr.train("data", model="dino-4scale", output="runs/x")

    Raises:
        InputError: an option or the data is wrong; the message is one line.
        Interrupted: Ctrl-C; everything is saved, and `resume=True` continues.
    """
    from od_detr.errors import InputError
    from od_detr.options import TrainOptions, from_values
    from od_detr.training.fit import fit

    chosen = from_values(TrainOptions, {"data": data} | options)
    if chosen.dry_run:
        raise InputError(
            "dry_run: nothing is trained, so there is no detector to return; run od-detr train "
            "--dry-run"
        )
    return Detector.from_pretrained(fit(chosen).directory)


@dataclass(frozen=True)
class NewDetector:
    """What to train: `fit` returns the trained detector and leaves this as it is.

    Attributes:
        options: options of `od-detr train` that it was created with.
    """

    options: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, data: str | Path, **options: Any) -> Detector:
        """Trains it and returns the best detector of the run.

        Args:
            data: folder of labelled images in COCO, YOLO or Pascal VOC layout.
            **options: as in `od_detr.train`; they come before those of `Detector.create`.

        Raises:
            InputError: an option or the data is wrong; the message is one line.
        """
        return train(data, **{**self.options, **options})

    def __getattr__(self, name: str) -> Any:
        hint = "; fit returns the trained one: detector = detector.fit(...)"
        trained = hint if hasattr(Detector, name) else ""
        raise AttributeError(f"a detector that is not trained has no {name}{trained}")


class Detector:
    """A trained detector, from `Detector.from_pretrained` or from training.

    Attributes:
        source: the run, folder, checkpoint or name on the hub that it was read from.
        predictor: the network, ready to predict.

    Example:
        detector = Detector.from_pretrained("runs/x/best")
        detections = detector.predict("street.jpg")
        metrics = detector.evaluate("data")
        better = detector.fit("more data", output="runs/y", epochs=24)

    Raises:
        InputError: it was called itself, as `Detector()`.
    """

    def __init__(self, source: str | Path = "", predictor: Predictor | None = None) -> None:
        if predictor is None:
            from od_detr.errors import InputError

            raise InputError(
                "Detector: give Detector.from_pretrained(RUN) for a trained detector, or "
                "Detector.create(MODEL) for a new one"
            )
        self.source, self.predictor = source, predictor

    def __repr__(self) -> str:
        return f"Detector({str(self.source)!r}, {len(self.classes)} classes)"

    @staticmethod
    def create(model: str = "deformable-detr-plus", **options: Any) -> NewDetector:
        """A new detector, to be trained with `fit`.

        Args:
            model: deformable-detr-plus, dab-deformable-detr, dino-4scale or dino-5scale.
            **options: options of `od-detr train`, such as `backbone="resnet18"` or `queries=100`.

        Example:
            detector = Detector.create("dino-4scale").fit("data", output="runs/x")

        Raises:
            InputError: an option is unknown or wrong; the message is one line.
        """
        from od_detr.errors import InputError
        from od_detr.options import TrainOptions, from_values

        if "data" in options:
            raise InputError("data: not an option of Detector.create; give it to fit(data)")
        chosen = {"model": model} | options
        from_values(TrainOptions, {"data": "."} | chosen)
        return NewDetector(chosen)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str = "auto", precision: str | int = "auto"
    ) -> Detector:
        """A trained detector.

        Args:
            source: folder of a run or of a saved detector; a Hugging Face folder; a checkpoint of
                the official code or of detrex; or a repository of the Hugging Face hub, as
                "owner/name" or "hf:owner/name".
            device: auto, cpu, cuda, cuda:0 or mps.
            precision: "auto", "32" or "bf16"; auto is bf16 where the processor supports it.

        Raises:
            InputError: there is no detector, the device is not present, or there is no such
                precision.
        """
        from od_detr.inference.predictor import Predictor
        from od_detr.integrations.weights.hub import as_source

        return cls(
            source, Predictor.from_run(as_source(source), device=device, precision=str(precision))
        )

    def fit(self, data: str | Path, **options: Any) -> Detector:
        """Fine-tunes the detector and returns the best one of the run.

        Architecture and image size are those of this detector, and classes of the same name keep
        their weights.

        Args:
            data: folder of labelled images in COCO, YOLO or Pascal VOC layout.
            **options: as in `od_detr.train`.

        Raises:
            InputError: an option or the data is wrong; the message is one line.
        """
        from od_detr.integrations.weights.hub import as_source

        return train(data, **{"init": as_source(self.source), **options})

    def save_pretrained(self, directory: str | Path) -> None:
        """Saves the detector in a folder that `from_pretrained` reads, with a model card.

        The card, `README.md`, says how to use the detector and which classes it has. For a run it
        also gives the data, the schedule and the AP. An existing card is kept.

        Args:
            directory: folder to write.

        Raises:
            InputError: a file cannot be written.
        """
        from od_detr.integrations.weights.hub import as_source
        from od_detr.integrations.weights.publishing.publish import save_with_card

        save_with_card(as_source(self.source), Path(directory))

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload detector",
    ) -> str:
        """Uploads the detector and its model card to the Hugging Face hub.

        Args:
            repository: `owner/name`; made where it is missing.
            private: whether a new repository is private; None takes the owner's default.
            token: of the hub; by default the one that `hf auth login` saved.
            commit_message: message of the upload.

        Returns:
            The address of the repository.

        Example:
            Detector.from_pretrained("runs/x").push_to_hub("me/my-detector")

        Raises:
            InputError: the hub cannot be reached, or refuses.
        """
        from od_detr.integrations.weights.hub import as_source
        from od_detr.integrations.weights.publishing.publish import push

        return push(
            as_source(self.source),
            repository,
            private=private,
            token=token,
            commit_message=commit_message,
        )

    def export(
        self,
        file: str | Path | None = None,
        format: Literal["onnx", "openvino"] | None = None,
    ) -> Path:
        """Writes the detector for ONNX or OpenVINO, which need neither PyTorch nor this package.

        The file takes RGB pixels of any size, resized as in training, and returns boxes from 0 to
        1, scores and labels. See `od_detr.inference.export`.

        Args:
            file: the file to write: `model.onnx`, or `model.xml` for OpenVINO with its weights in
                a `.bin` file of the same name. Older files are replaced.
            format: what to write; None goes by the suffix of `file`.

        Returns:
            The file.

        Example:
            Detector.from_pretrained("runs/x").export("detector.onnx")

        Raises:
            InputError: the packages for the export are not installed, the suffix is that of another
                format, or the file cannot be written.
        """
        from od_detr.inference.export import check_installed, export, file_of
        from od_detr.inference.predictor import Predictor
        from od_detr.integrations.weights.hub import as_source

        chosen = file_of(file, format)
        check_installed(chosen)
        # The predictor at hand may be on a GPU, or in bfloat16.
        exact = Predictor.from_run(as_source(self.source), device="cpu", precision="32")
        export(exact, chosen)
        return chosen

    def __getattr__(self, name: str) -> Any:
        """Names the method that other packages call `name`."""
        meant = METHODS.get(name)
        hint = f"; did you mean {meant}?" if meant else ""
        raise AttributeError(f"Detector has no attribute {name!r}{hint}")

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, by class id."""
        return self.predictor.classes

    def predict(
        self,
        source: Any,
        threshold: float | Literal["auto"] | None = None,
        batch_size: int = 4,
        classes: Sequence[str] | None = None,
        **others: Any,
    ) -> supervision.Detections | list[supervision.Detections] | Iterator[supervision.Detections]:
        """Detects objects in whatever shows something.

        Args:
            source: a path, a PIL image, an RGB array (height, width, 3) of uint8, an RGB tensor
                (3, height, width) of uint8 or of floats from 0 to 1; a list or a batch of these; a
                folder, a glob, a video, or the number of a camera. OpenCV reads BGR: turn it with
                `image[..., ::-1]`.
            threshold: lowest score that is returned, from 0 to 1. "auto" or None takes the one with
                the highest F1 on the validation set of the run, or 0.3 if none was measured.
            batch_size: most images that are computed together.
            classes: names of the classes to return; None returns all.
            **others: refused, with the nearest name that is known.

        Returns:
            supervision.Detections, best first: pixel xyxy inside the image, scores, class ids,
            class names in `.data["class_name"]`. A list of them for a list, a generator for a
            folder, a glob, or the frames of a video or camera.

        Raises:
            InputError: an image that cannot be read, an address, a threshold out of range, a class
                that the detector does not know, or an unknown argument.
        """
        _check_names(others, self.predictor.predict)
        return self.predictor.predict(source, threshold, batch_size, classes)

    def evaluate(
        self,
        data: str | Path | None = None,
        split: Literal["train", "val", "test"] = "val",
        **options: Any,
    ) -> dict[str, Any]:
        """The 12 COCO metrics by name, AP `per_class` and `per_iou`, and what a threshold gives.

        See `od_detr.evaluation.analysis.analysed` for all keys. It adds the `confusion` matrix
        and `notes`: how a data set without a validation split was divided.

        Args:
            data: folder of labelled images in COCO, YOLO or Pascal VOC layout; None takes the one
                that the run was trained on.
            split: part of the data.
            **options: `threshold`, `batch_size`, `image_size`, `device` and the other arguments of
                `od_detr.inference.evaluate.evaluate_run`, checked as on the command line.

        Raises:
            InputError: the data cannot be used, or has classes that the detector does not know; or
                there is no such argument, or it is out of range.
        """
        from od_detr.inference.evaluate import evaluate_as, evaluate_run
        from od_detr.integrations.weights.hub import as_source
        from od_detr.options import from_values
        from od_detr.options.commands.evaluate import EvaluateOptions

        _check_names(options, evaluate_run, besides=("run",))
        about = {"run": as_source(self.source), "data": data, "split": split}
        return evaluate_as(from_values(EvaluateOptions, about | options))


def _check_names(
    given: Mapping[str, Any], function: Callable[..., Any], besides: Sequence[str] = ()
) -> None:
    """Refuses keyword arguments that a function does not have, or that are not to be given.

    Args:
        given: the keyword arguments.
        function: what they are for.
        besides: its arguments that are not to be given.

    Raises:
        InputError: one line with the nearest name.
    """
    from od_detr.errors import InputError
    from od_detr.options.names import nearest
    from od_detr.options.peers.words import ELSEWHERE

    known = [name for name in signature(function).parameters if name not in besides]
    for name in given:
        if name not in known:
            meant = SYNONYMS.get(name)
            if meant not in known:
                meant = None if name in ELSEWHERE else nearest(name, known)
            hint = ELSEWHERE.get(name, f"there are {', '.join(known)}")
            hint = f"did you mean {meant}?" if meant else hint
            raise InputError(f"{name}: no such argument; {hint}")
