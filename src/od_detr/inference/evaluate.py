"""A trained detector's metrics on a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from od_detr.data.annotations import Annotations
from od_detr.data.dataset import CocoDataset
from od_detr.data.folders import choices_of, folder_of, open_split
from od_detr.data.formats.choices import Choices
from od_detr.data.preparation.classes import evaluated_classes
from od_detr.data.preparation.splitting import DIVIDED
from od_detr.data.transforms import Transform
from od_detr.data.writing.folder import refuse_unwritable
from od_detr.detectors import DetectionTransformer
from od_detr.errors import InputError
from od_detr.evaluation.analysis import analysed
from od_detr.evaluation.coco import CocoEvaluator
from od_detr.evaluation.confusion import confusion_matrix
from od_detr.evaluation.pairing import paired
from od_detr.files import atomic_write, writing
from od_detr.inference.precision import choose_precision, computing, prepare
from od_detr.inference.predictor import DEFAULT_SIZE, open_run
from od_detr.inference.reading import OnUnreadable, Reading
from od_detr.machine.devices import choose_device
from od_detr.options import TrainOptions, from_values
from od_detr.options.commands.evaluate import EvaluateOptions
from od_detr.options.config_file import read_config
from od_detr.run_files import RunFiles


def evaluate_as(options: EvaluateOptions) -> dict[str, Any]:
    """What `evaluate_run` gives with the options of the command, which were checked.

    Raises:
        InputError: the run or the data cannot be used, or the output cannot be written.
    """
    return evaluate_run(
        Path(options.run),
        None if options.data is None else Path(options.data),
        options.split,
        weights=options.weights,
        image_size=options.image_size,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        precision=options.precision,
        threshold=options.threshold,
        output=None if options.output is None else Path(options.output),
        on_unreadable=options.on_unreadable,
    )


def evaluate_run(
    run: Path,
    data: Path | None = None,
    split: Literal["train", "val", "test"] = "val",
    *,
    weights: str = "best",
    image_size: int | None = None,
    batch_size: int = 4,
    workers: int = 0,
    device: str = "auto",
    precision: str = "32",
    threshold: float | None = None,
    output: Path | None = None,
    on_unreadable: OnUnreadable = "stop",
) -> dict[str, Any]:
    """The metrics of a run's weights: see `od_detr.evaluation.analysis.analysed`.

    To them it adds the `confusion` matrix, and `skipped`, a line for each image that was left out.
    Images of one size are computed together, without padding, as `predict` does: so the batch size
    changes nothing, and `predict` attains this AP.

    The data is read and divided as the run's `config.yaml` says; see `run_choices`. The detector
    may know more classes than the data set has categories; what it takes for another is not
    counted.

    Args:
        run: folder of a run or of a saved detector.
        data: the data set's folder; None takes the one that the run was trained on.
        split: the part of it.
        weights: which of the run's weights, as in `od-detr evaluate --weights`.
        image_size: short side of the images in pixels; None for that of training.
        batch_size: images in a batch.
        workers: processes that load images.
        device: where the network runs.
        precision: 32 repeats the metrics of training. auto and bf16 give what `predict` attains
            with them.
        threshold: score from which a detection counts in the figures of a threshold; None takes
            the detector's own, or the best one on this data if it has none.
        output: file for the detections as COCO results, or None.
        on_unreadable: "stop" reports unreadable images before the first batch; "skip" leaves them
            and their objects out.

    Raises:
        InputError: the run or the data cannot be used, or `output` cannot be written.
    """
    if output is not None:
        refuse_output(output)
    detector, config = open_run(run, weights)
    data = data_of(run) if data is None else data
    transform = Transform(image_size or config.get("image_size", DEFAULT_SIZE), "none")
    annotations = opened(run, data, split, config["classes"])
    reading = Reading(annotations, on_unreadable)
    dataset = CocoDataset(reading.annotations, transform)
    labels = category_labels(dataset, config["classes"], config.get("category_ids") or ())
    keep_classes(detector, labels)
    evaluator = CocoEvaluator(dataset.annotations, dataset.category_ids)
    place = choose_device(device)
    precision = choose_precision(precision, place)
    detector = prepare(detector.to(place), precision)
    reads = reading.batches(dataset, batch_size, workers)
    with torch.inference_mode(), computing(precision, place), reads as batches:
        for batch in batches:
            evaluator.add_detections(batch, detector.detect(batch.to(place)))
    evaluator = reading.scored(evaluator, dataset.category_ids)
    if output is not None:
        write_results(evaluator, output)
    pairing = paired(evaluator.truth, evaluator.detections)
    chosen = config.get("threshold") if threshold is None else threshold
    results = analysed(evaluator, chosen, pairing)
    confusion = confusion_matrix(pairing, results["threshold"])
    notes = [str(each) for each in reading.annotations.findings if each.code == DIVIDED]
    return results | {"confusion": confusion, "skipped": reading.skipped, "notes": notes}


def refuse_output(output: Path) -> None:
    """Refuses a file that could not be written after all images are computed.

    Raises:
        InputError: naming what stands in the way.
    """
    if output.is_dir():
        example = output / "detections.json"
        raise InputError(f"--output {output}: is a folder; give a file such as {example}")
    refuse_unwritable(output, "--output")


def write_results(evaluator: CocoEvaluator, output: Path) -> None:
    """Writes the detections as COCO results, which `loadRes` of pycocotools reads.

    Raises:
        InputError: the file cannot be written.
    """
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as partial:
            partial.write_text(json.dumps(evaluator.results()))


def data_of(run: Path) -> Path:
    """The folder that a run was trained on, as its `config.yaml` says.

    Raises:
        InputError: it is no run, or its `config.yaml` has an unknown option or a wrong value.
    """
    files = RunFiles.of(run)
    if not files.is_run:
        raise InputError(f"{run}: does not say which data it was trained on; give --data DIR")
    return Path(from_values(TrainOptions, read_config(TrainOptions, files.config)).data)


def run_choices(run: Path, data: Path) -> Choices:
    """How a run's training read its data: `--val-fraction`, `--group`, `--classes` and so on.

    `--val-data` counts only where `data` is the folder that the run was trained on; the images of
    any other folder are its own. A saved detector outside a run gives the defaults.

    Raises:
        InputError: the run's `config.yaml` has an unknown option or a wrong value.
    """
    files = RunFiles.of(run)
    if not files.is_run:
        return Choices()
    options = from_values(TrainOptions, read_config(TrainOptions, files.config))
    choices = choices_of(options)
    trained = Path(options.data)
    if not (trained.is_file() and data.is_file()):  # a YAML file also stands for its folder
        trained, data = folder_of(trained), folder_of(data)
    return choices if trained.resolve() == data.resolve() else replace(choices, val_data=None)


def opened(
    run: Path, data: Path, split: Literal["train", "val", "test"], classes: Sequence[str]
) -> Annotations:
    """A split as the training of a run would read it, with the classes to evaluate.

    Args:
        run: folder of the run.
        data: the data set's folder.
        split: the part of it.
        classes: the detector's.

    Raises:
        InputError: the data cannot be used.
    """
    choices = run_choices(run, data)
    if choices.single_class:
        return open_split(data, split, choices)
    own = open_split(data, split, replace(choices, classes=()))
    return evaluated_classes(own, classes, choices.classes)


def category_labels(
    dataset: CocoDataset, classes: Sequence[str], category_ids: Sequence[int]
) -> list[int]:
    """The detector's label of each category of the data set.

    It is the label of the same id and name, else of the same name. `classes` are the detector's
    and `category_ids` theirs, if known. Their names may repeat: checkpoints of the official code
    have a class for every id up to the last, whether COCO uses it or not.

    Raises:
        InputError: a category that the detector does not know.
    """
    by_name = {name: label for label, name in reversed(list(enumerate(classes)))}
    by_both = {both: label for label, both in enumerate(zip(category_ids, classes, strict=False))}
    labels = []
    for category, name in zip(dataset.category_ids, dataset.classes, strict=True):
        if name not in by_name:
            raise InputError(
                f"{dataset.annotations.file}: category {category}: name {name!r} is not a class "
                f"of the detector; use its class names {', '.join(classes)}"
            )
        labels.append(by_both.get((category, name), by_name[name]))
    return labels


def keep_classes(detector: DetectionTransformer, labels: Sequence[int]) -> None:
    """Cuts the decoder's class heads to these labels, in this order.

    So no other class takes a detection's place. The proposals of a two-stage architecture stay as
    they were trained.
    """
    for head in detector.decoder.heads.classes:
        assert isinstance(head, nn.Linear)
        rows = list(labels)
        head.weight, head.bias = nn.Parameter(head.weight[rows]), nn.Parameter(head.bias[rows])
