"""A trained detector's figures on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from od_detr.criteria.matching import MatchCost
from od_detr.data.batching import BatchSampler, loader
from od_detr.data.dataset import CocoDataset
from od_detr.data.formats import find_split
from od_detr.data.transforms import Transform
from od_detr.evaluation.scoring import Scorer, score
from od_detr.inference.precision import choose_precision, computing, prepare
from od_detr.inference.predictor import DEFAULT_SIZE, choose_device, open_run


def evaluate_run(
    run: Path,
    data: Path,
    split: Literal["train", "val", "test"] = "val",
    *,
    weights: str = "best",
    image_size: int | None = None,
    batch_size: int = 4,
    workers: int = 0,
    device: str = "auto",
    precision: str = "32",
) -> dict[str, Any]:
    """The 12 COCO figures and `per_class` AP of a run's weights; `image_size` None is that of training.

    `precision` 32 repeats the figures of training; auto and bf16 tell what `predict` attains.
    """
    detector, config = open_run(run, weights)
    transform = Transform(image_size or config.get("image_size", DEFAULT_SIZE), "none")
    dataset = CocoDataset.from_folder(data, split, transform, classes=config["classes"])
    annotations, _ = find_split(data, split)
    sampler = BatchSampler(len(dataset), batch_size, shuffle=False)
    scorer = Scorer(annotations, dataset.category_ids, MatchCost())
    place = choose_device(device)
    precision = choose_precision(precision, place)
    with computing(precision, place):
        return score(prepare(detector.to(place), precision), loader(dataset, sampler, workers), scorer)
