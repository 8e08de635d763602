"""COCO figures against pycocotools, the reference, and the figures published with it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
import supervision
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from od_detr.data.formats.coco import read_coco
from od_detr.errors import InputError
from od_detr.evaluation.coco import (
    METRICS,
    CocoEvaluator,
    detections_to_coco,
    evaluate_detections,
)

RECORDED = Path(__file__).parent / "recorded"


def random_case(seed: int, most: int = 30) -> tuple[dict, list[dict]]:
    """Gaps in the ids, crowds, empty images, tied scores.

    Areas that are small, medium, large and not the box's.
    """
    rng = np.random.default_rng(seed)
    image_ids, category_ids = [3, 17, 40, 41, 100], [2, 7, 90]

    def boxes(number: int) -> np.ndarray:
        return np.concatenate(
            [rng.uniform(0, 200, (number, 2)), np.exp(rng.uniform(1, 6, (number, 2)))], 1
        )

    annotations, detections = [], []
    for image_id in image_ids[:-1]:  # the last image has no ground truth
        truth = boxes(rng.integers(0, 12))
        for box in truth.tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(category_ids)),
                    "bbox": box,
                    "area": box[2] * box[3] * rng.uniform(0.3, 1),
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
    for image_id in image_ids[1:]:  # the first image has no detections
        near = [entry for entry in annotations if entry["image_id"] == image_id for _ in range(3)]
        for entry in near:
            box = np.array(entry["bbox"]) * rng.uniform(0.9, 1.1, 4)
            detections.append(
                {"category_id": entry["category_id"], "bbox": box.tolist()} | {"image_id": image_id}
            )
        for box in boxes(rng.integers(0, most)).tolist():
            detections.append(
                {"image_id": image_id, "category_id": int(rng.choice(category_ids)), "bbox": box}
            )
    detections = [entry | {"score": round(float(rng.random()), 1)} for entry in detections]
    categories = [
        {"id": category_id, "name": f"class {category_id}"} for category_id in category_ids
    ]
    images = [{"id": image_id, "width": 640, "height": 480} for image_id in image_ids]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def reference(truth: dict, detections: list[dict], category: int | None = None) -> list[float]:
    """What pycocotools makes of it."""
    return list(counted(truth, detections, category).stats)


def counted(truth: dict, detections: list[dict], category: int | None = None) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = copy.deepcopy(truth)
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes(copy.deepcopy(detections)), "bbox")
        if category is not None:
            evaluation.params.catIds = [category]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.fixture(scope="module")
def published() -> tuple[Path, list[dict], dict[str, float]]:
    detections = json.loads((RECORDED / "coco_val2014_100_detections.json").read_text())
    expected = json.loads((RECORDED / "coco_val2014_100_metrics.json").read_text())
    return RECORDED / "coco_val2014_100.json", detections, expected


def test_the_published_figures_are_met_to_three_decimals(published) -> None:
    truth, detections, expected = published
    summary = evaluate_detections(truth, detections)
    assert {name: round(summary[name], 3) for name in METRICS} == {
        name: round(value, 3) for name, value in expected.items()
    }
    evaluator = CocoEvaluator(str(truth))
    evaluator.add_results(detections)
    assert evaluator.summary() == summary


@pytest.mark.parametrize("seed", range(12))
def test_figures_equal_pycocotools(seed: int) -> None:
    truth, detections = random_case(seed)
    summary = evaluate_detections(truth, detections)
    assert [summary[name] for name in METRICS] == pytest.approx(
        reference(truth, detections), abs=1e-6
    )


def test_detections_beyond_the_hundredth_are_dropped_as_pycocotools_drops_them() -> None:
    truth, detections = random_case(0, most=900)
    assert max(np.unique([entry["image_id"] for entry in detections], return_counts=True)[1]) > 300
    summary = evaluate_detections(truth, detections)
    assert [summary[name] for name in METRICS] == pytest.approx(
        reference(truth, detections), abs=1e-6
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_class_has_the_precision_pycocotools_finds_for_it_alone(seed: int) -> None:
    truth, detections = random_case(seed)
    per_class = evaluate_detections(truth, detections)["per_class"]
    for category in truth["categories"]:
        alone = reference(truth, detections, category["id"])[0]
        assert per_class[category["name"]] == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_every_iou_threshold_has_the_precision_pycocotools_finds_for_it(seed: int) -> None:
    truth, detections = random_case(seed)
    summary = evaluate_detections(truth, detections)
    theirs = counted(truth, detections)
    precision = theirs.eval["precision"][:, :, :, 0, -1]
    expected = [at[at > -1].mean() for at in precision]
    assert list(summary["per_iou"]) == [f"{iou:.2f}" for iou in theirs.params.iouThrs]
    assert list(summary["per_iou"].values()) == pytest.approx(expected, abs=1e-6)
    assert summary["per_iou"]["0.50"] == pytest.approx(summary["AP50"], abs=1e-6)
    assert np.mean(expected) == pytest.approx(summary["AP"], abs=1e-6)


def test_no_detections_find_nothing_and_undefined_figures_stay_minus_one() -> None:
    truth, _ = random_case(1)
    truth["annotations"] = [entry | {"area": 50.0, "iscrowd": 0} for entry in truth["annotations"]]
    summary = evaluate_detections(truth, [])
    assert all(summary[name] == 0 for name in METRICS if name[-1] not in "ml")
    assert all(summary[name] == -1 for name in METRICS if name[-1] in "ml")
    nothing = evaluate_detections(truth | {"annotations": []}, [])
    assert all(nothing[name] == -1 for name in METRICS)
    assert set(nothing["per_class"].values()) == {-1}


def test_missing_iscrowd_and_area_mean_no_crowd_and_the_area_of_the_box() -> None:
    truth, detections = random_case(2)
    bare = copy.deepcopy(truth)
    for full, entry in zip(truth["annotations"], bare["annotations"], strict=True):
        full |= {"iscrowd": 0, "area": full["bbox"][2] * full["bbox"][3]}
        del entry["iscrowd"], entry["area"]
    assert evaluate_detections(bare, detections) == evaluate_detections(truth, detections)


def test_annotation_ids_do_not_matter() -> None:
    """An id 0 counts as unmatched in pycocotools; repeated ids hide objects there."""
    truth, detections = random_case(3)
    expected = evaluate_detections(truth, detections)
    for entry in truth["annotations"]:
        entry["id"] = 0
    assert evaluate_detections(truth, detections) == expected


def test_the_users_annotations_and_detections_stay_as_they_are(tmp_path: Path) -> None:
    truth, detections = random_case(4)
    before = copy.deepcopy((truth, detections))
    from_content = evaluate_detections(truth, detections)
    assert (truth, detections) == before
    file = tmp_path / "val.json"
    file.write_text(json.dumps(truth))
    stamp = file.stat().st_mtime_ns
    assert evaluate_detections(file, detections) == from_content
    assert file.stat().st_mtime_ns == stamp
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_id": 999}, "image_id 999"),
        ({"category_id": 1}, "category_id 1"),
        ({"score": float("nan")}, "score is nan"),
        ({"score": None}, "score is None"),
        ({"bbox": [0, 0, 1]}, "bbox"),
        ({"bbox": [0, 0, float("inf"), 1]}, "bbox"),
    ],
)
def test_a_wrong_detection_is_named_in_one_line(change: dict, named: str) -> None:
    truth, detections = random_case(5)
    with pytest.raises(InputError, match=named) as error:
        evaluate_detections(truth, [*detections, detections[0] | change])
    assert f"detection {len(detections)}" in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_annotations_are_named_with_their_file(tmp_path: Path) -> None:
    truth, _ = random_case(6)
    first = truth["annotations"][0]
    cases = {
        "annotation 1": truth | {"annotations": [first | {"category_id": 1}]},
        "bbox": truth | {"annotations": [first | {"bbox": None}]},
        "id 3 is there twice": truth | {"images": [*truth["images"], truth["images"][0]]},
        "'images' is empty": truth | {"images": []},
        "'categories' is missing": {
            key: value for key, value in truth.items() if key != "categories"
        },
    }
    for number, (named, content) in enumerate(cases.items()):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=named) as error:
            evaluate_detections(file, [])
        assert file.name in str(error.value)


@pytest.mark.parametrize(
    "text", [b'{"images": [', b"", b"[]", b"[" * 100_000, '{"images": "ä"}'.encode("latin-1"), None]
)
def test_a_file_that_is_no_json_is_told_as_in_training(text: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "val.json"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(InputError) as ours:
        evaluate_detections(file, [])
    with pytest.raises(InputError) as training:
        read_coco(file)
    message = str(ours.value)
    assert message == str(training.value)
    assert message.startswith(f"{file}: ")
    assert "; " in message
    assert "\n" not in message


def test_classes_of_one_name_are_told_apart_by_their_id() -> None:
    truth, detections = random_case(7)
    for category in truth["categories"][:2]:
        category["name"] = "twin"
    assert list(evaluate_detections(truth, detections)["per_class"]) == [
        "twin (2)",
        "twin (7)",
        "class 90",
    ]


def add_as_tensors(
    evaluator: CocoEvaluator, detections: list[dict], category_ids: list[int]
) -> None:
    for image_id in {entry["image_id"]: None for entry in detections}:
        own = [entry for entry in detections if entry["image_id"] == image_id]
        corners = torch.tensor([entry["bbox"] for entry in own], dtype=torch.float64)
        corners[:, 2:] += corners[:, :2]
        scores = torch.tensor([entry["score"] for entry in own], dtype=torch.float64)
        labels = torch.tensor([category_ids.index(entry["category_id"]) for entry in own])
        evaluator.add(image_id, corners, scores, labels)


def test_tensors_of_every_image_give_what_results_give_at_every_epoch() -> None:
    truth, detections = random_case(8)
    category_ids = [90, 2, 7]
    evaluator = CocoEvaluator(truth, category_ids)
    expected = evaluate_detections(truth, detections)
    for _ in range(2):
        add_as_tensors(
            evaluator, detections[::-1][::2], category_ids
        )  # an image again replaces its earlier self
        add_as_tensors(evaluator, detections, category_ids)
        summary = evaluator.summary()
        assert [summary[name] for name in METRICS] == pytest.approx(
            [expected[name] for name in METRICS], abs=1e-6
        )
        evaluator.reset()
        assert evaluator.summary()["AP"] == 0


def test_two_processes_merged_see_what_one_sees() -> None:
    truth, detections = random_case(9)
    whole, left, right = (CocoEvaluator(truth) for _ in range(3))
    whole.add_results(detections)
    left.add_results([entry for entry in detections if entry["image_id"] < 41])
    right.add_results(
        [entry for entry in detections if entry["image_id"] > 17]
    )  # image 40 was padded in
    left.merge(right.detections)
    assert left.summary() == whole.summary()


def test_detections_that_are_not_finite_find_nothing() -> None:
    truth, _ = random_case(10)
    evaluator = CocoEvaluator(truth)
    evaluator.add(
        3,
        torch.tensor([[0.0, 0, torch.nan, 9], [0, 0, 9, 9]]),
        torch.tensor([0.5, torch.inf]),
        torch.zeros(2, dtype=torch.long),
    )
    assert len(evaluator.detections) == 0
    assert evaluator.summary()["AP"] == 0


def test_a_category_the_ground_truth_lacks_is_named() -> None:
    truth, _ = random_case(11)
    with pytest.raises(InputError, match="category_id 5"):
        CocoEvaluator(truth, [2, 5])


def test_supervisions_detections_survive_the_way_to_coco_results() -> None:
    truth, detections = random_case(12)
    results = []
    for image in truth["images"]:
        own = [entry for entry in detections if entry["image_id"] == image["id"]]
        if not own:
            assert detections_to_coco(supervision.Detections.empty(), image["id"]) == []
            continue
        corners = np.array([entry["bbox"] for entry in own])
        corners[:, 2:] += corners[:, :2]
        found = supervision.Detections(
            xyxy=corners,
            confidence=np.array([entry["score"] for entry in own]),
            class_id=np.array([[2, 7, 90].index(entry["category_id"]) for entry in own]),
        )
        results += detections_to_coco(found, image["id"], [2, 7, 90])
    json.dumps(results)
    ours, theirs = evaluate_detections(truth, results), evaluate_detections(truth, detections)
    assert [ours[name] for name in METRICS] == pytest.approx(
        [theirs[name] for name in METRICS], abs=1e-6
    )
    with pytest.raises(ValueError, match="confidence"):
        detections_to_coco(supervision.Detections(xyxy=np.zeros((1, 4))), 3)
