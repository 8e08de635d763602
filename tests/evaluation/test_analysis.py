"""Thresholds, error kinds, duplicates and confusion, against hand counts and pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.evaluation.test_coco import random_case

from od_detr.evaluation.analysis import analysed
from od_detr.evaluation.coco import CocoEvaluator, evaluate_detections
from od_detr.evaluation.confusion import confusion_matrix
from od_detr.evaluation.mistakes import KINDS
from od_detr.evaluation.pairing import paired

Box = tuple[float, float, float, float]


def collected(truth: dict, detections: list[dict]) -> CocoEvaluator:
    evaluator = CocoEvaluator(truth)
    evaluator.add_results(detections)
    return evaluator


def case(objects: list[tuple[int, Box]], found: list[tuple[int, Box, float]]) -> CocoEvaluator:
    """One image of 100 pixels with objects and detections of the classes 1 and 2."""
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": category, "bbox": list(box)}
            for n, (category, box) in enumerate(objects, 1)
        ],
    }
    detections = [
        {"image_id": 1, "category_id": category, "bbox": list(box), "score": score}
        for category, box, score in found
    ]
    return collected(truth, detections)


def reference_counts(truth: dict, detections: list[dict], threshold: float) -> tuple[int, int]:
    """True and false positives above a threshold by pycocotools' matching at IoU 0.5."""
    shown = [each for each in detections if each["score"] >= threshold]
    if not shown:
        return 0, 0
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = copy.deepcopy(truth)
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes(copy.deepcopy(shown)), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.maxDets = [1000]
        evaluation.evaluate()
    images = [each for each in evaluation.evalImgs if each is not None]
    matched = np.concatenate([each["dtMatches"][0] > 0 for each in images])
    ignored = np.concatenate([each["dtIgnore"][0] for each in images]).astype(bool)
    return int((matched & ~ignored).sum()), int((~matched & ~ignored).sum())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.345, 0.8])
def test_precision_and_recall_are_those_of_pycocotools_matching(
    seed: int, threshold: float
) -> None:
    truth, detections = random_case(seed)
    right, wrong = reference_counts(truth, detections, threshold)
    objects = sum(not each["iscrowd"] for each in truth["annotations"])
    results = analysed(collected(truth, detections), threshold)
    assert results["precision"] == pytest.approx(right / max(1, right + wrong))
    assert results["recall"] == pytest.approx(right / objects)
    assert results["errors"]["found"] == right
    false = ("background", "duplicate", "wrong_class", "badly_placed")
    assert sum(results["errors"][kind] for kind in false) == wrong


def test_all_figures_are_those_of_the_exact_threshold() -> None:
    evaluator = case([(1, CAT)], [(1, CAT, 0.238), (1, DOG, 0.232)])
    for threshold, precision in ((0.23, 0.5), (0.235, 1.0), (0.238, 1.0)):
        results = analysed(evaluator, threshold)
        assert (results["precision"], results["recall"]) == (precision, 1.0)
        assert results["classes"]["cat"]["precision"] == precision
        assert results["errors"]["background"] == round(1 / precision) - 1
    assert analysed(evaluator, 0.2385)["recall"] == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_the_best_threshold_has_the_highest_f1_of_all(seed: int) -> None:
    truth, detections = random_case(seed)
    evaluator = collected(truth, detections)
    best = analysed(evaluator)
    assert best["threshold"] == best["best_threshold"]
    others = [analysed(evaluator, place / 100)["F1"] for place in range(0, 101, 5)]
    assert best["F1"] >= max(others)
    curve = best["curves"]["all"]["F1"]
    assert best["F1"] == pytest.approx(max(curve), abs=1e-4)
    assert {len(values) for values in best["curves"]["all"].values()} == {101}


def test_coco_metrics_are_those_of_evaluate_detections() -> None:
    truth, detections = random_case(1)
    results = analysed(collected(truth, detections))
    expected = evaluate_detections(truth, detections)
    assert {name: results[name] for name in expected} == expected


def test_a_detection_is_compared_with_the_crowds_of_its_own_image_only() -> None:
    """Pascal VOC has thousands of difficult objects: with all detections it would take minutes."""
    images, each = 50, 20
    crowds = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 1}
        for n in range(images)
    ]
    evaluator = CocoEvaluator(
        {
            "images": [{"id": n, "width": 100, "height": 100} for n in range(images)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": crowds[::2],
        }
    )
    left = torch.linspace(0, 10, each)
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 10], 1)
    for image in range(images):
        evaluator.add(image, boxes, torch.linspace(1, 0, each), torch.arange(each) % 2)
    pairing = paired(evaluator.truth, evaluator.detections)
    inside = (pairing.boxes_xyxy[:, 0] <= 5) & (pairing.image % 2 == 0) & (pairing.category == 0)
    assert np.array_equal(pairing.ignored, inside)


CAT: Box = (10, 10, 20, 20)
DOG: Box = (60, 60, 20, 20)
KINDS_OF_ONE: list[tuple[str, list[Any], dict[str, int]]] = [
    ("found", [(1, CAT, 0.9)], {"found": 1, "missed": 1}),
    ("missed", [], {"missed": 2}),
    ("below", [(1, CAT, 0.1)], {"missed": 2}),
    ("duplicate", [(1, CAT, 0.9), (1, (11, 10, 20, 20), 0.8)], {"found": 1, "missed": 1}),
    ("wrong_class", [(2, CAT, 0.9)], {"missed": 1}),
    ("badly_placed", [(1, (20, 20, 20, 20), 0.9)], {"missed": 1}),
    ("background", [(1, (40, 0, 10, 10), 0.9)], {"missed": 2}),
]


@pytest.mark.parametrize(("kind", "detections", "rest"), KINDS_OF_ONE, ids=lambda each: str(each))
def test_each_detection_is_of_one_kind(
    kind: str, detections: list[Any], rest: dict[str, int]
) -> None:
    errors = analysed(case([(1, CAT), (2, DOG)], detections), 0.5)["errors"]
    expected = dict.fromkeys(KINDS, 0) | rest
    if kind in KINDS[2:]:
        expected[kind] = 1
    assert errors == expected


def test_duplicates_repeat_a_detection_of_their_class_with_a_higher_score() -> None:
    near: Box = (11, 10, 20, 20)  # IoU 0.9 with CAT
    repeated = [(1, CAT, 0.9), (1, near, 0.8), (2, CAT, 0.7), (1, DOG, 0.7), (1, near, 0.1)]
    results = analysed(case([(1, CAT)], repeated), 0.5)
    assert results["duplicates"] == 1 / 4


def test_suppressing_duplicates_raises_ap_where_they_stand_before_an_object() -> None:
    near: Box = (11, 10, 20, 20)
    results = analysed(case([(1, CAT), (1, DOG)], [(1, CAT, 0.9), (1, near, 0.8), (1, DOG, 0.7)]))
    assert results["AP_nms"] == pytest.approx(1)
    assert results["AP"] < 0.9
    alone = analysed(case([(1, CAT)], [(1, CAT, 0.9)]))
    assert alone["AP_nms"] == alone["AP"]


def test_without_anything_found_there_is_no_best_threshold() -> None:
    results = analysed(case([(1, CAT)], [(1, DOG, 0.9)]))
    assert results["best_threshold"] is None
    assert 0 < results["threshold"] < 1
    assert analysed(case([], []))["best_threshold"] is None


def test_the_confusion_matrix_counts_every_object_and_detection_once() -> None:
    found = [(1, CAT, 0.9), (1, DOG, 0.8), (2, (0, 80, 9, 9), 0.7), (2, CAT, 0.2)]
    evaluator = case([(1, CAT), (2, DOG), (2, (40, 0, 10, 10))], found)
    confusion = confusion_matrix(paired(evaluator.truth, evaluator.detections), 0.5)
    assert confusion["classes"] == ["cat", "dog", "background"]
    assert confusion["matrix"] == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
