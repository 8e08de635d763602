"""A converted detector with more classes than the data set has categories is evaluated."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import clip_boxes_to_image

from od_detr.criteria.matching import MatchCost
from od_detr.data.dataset import CocoDataset
from od_detr.data.images import read_image
from od_detr.data.loading.batching import BatchSampler, collate
from od_detr.data.loading.workers import Loader
from od_detr.data.transforms import Sample, Transform
from od_detr.detectors import DetectionTransformer, load_detector, save_detector
from od_detr.errors import InputError
from od_detr.evaluation.coco import METRICS
from od_detr.evaluation.scoring import Scorer
from od_detr.inference.evaluate import evaluate_run
from od_detr.inference.precision import prepare
from od_detr.inference.predictor import Predictor
from od_detr.integrations.weights.convert import convert
from od_detr.integrations.weights.official import to_official

pytestmark = pytest.mark.slow

KEPT = {
    1: "person",
    18: "dog",
    90: "toothbrush",
}  # of the 91 ids that the official code has classes for
ARCHITECTURES = ("deformable-detr-plus", "dino-4scale")
CLASS_HEADS = re.compile(r"(decoder|queries)\.heads\.classes\.")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def holed(small, request) -> DetectionTransformer:
    """91 classes, of which all but the kept ones are very sure of themselves."""
    detector = small(request.param, num_classes=91, queries=20)
    others = [label for label in range(91) if label not in KEPT]
    with torch.no_grad():
        for name, value in detector.named_parameters():
            if name.startswith("decoder.heads.classes.") and name.endswith("bias"):
                value[others] = 9.0
            elif (
                name.startswith("decoder.heads.classes.")
                or name == "queries.reference_points.weight"
            ):
                # Classes that differ from query to query, and queries that look at different
                # places.
                value *= 8
            elif (
                name == "queries.heads.classes.0.bias"
            ):  # or the encoder would propose other places without them
                value[others] = -99.0
    return detector


@pytest.fixture(scope="module")
def conversion(holed: DetectionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("conversion"), holed.settings["model"]
    torch.save({"model": to_official(holed.state_dict(), model)}, folder / "checkpoint.pth")
    convert(folder / "checkpoint.pth", model, folder / "converted")
    return folder / "converted"


@pytest.fixture
def converted(conversion: Path, tmp_path: Path) -> Path:
    """The converted detector, for this test to change."""
    return Path(shutil.copytree(conversion, tmp_path / "converted"))


@pytest.fixture(scope="module")
def cut(holed: DetectionTransformer, small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same detector, saved with heads for the kept classes alone."""
    detector, weights = (
        small(holed.settings["model"], num_classes=len(KEPT), queries=20),
        holed.state_dict(),
    )
    rows = {name: list(KEPT) for name in weights if CLASS_HEADS.match(name)}
    rows["denoising.labels.weight"] = [*KEPT, 91]
    detector.load_state_dict(
        {name: value[rows[name]] if name in rows else value for name, value in weights.items()}
    )
    folder = tmp_path_factory.mktemp("cut")
    save_detector(detector, folder, list(KEPT.values()), category_ids=list(KEPT), image_size=64)
    return folder


@pytest.fixture
def data(noise: Path, tmp_path: Path) -> Path:
    """The noise images, for this test to change."""
    return Path(shutil.copytree(noise, tmp_path / "data"))


@pytest.fixture(scope="module")
def noise(cut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise images: in each class the cut detector finds one object second and misses another."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    content: dict[str, list[dict]] = {
        "images": [],
        "annotations": [],
        "categories": categories(KEPT),
    }
    predictor = Predictor.from_run(cut, device="cpu", precision="32")
    for image in (3, 8):
        file = folder / f"{image}.png"
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(file)
        content["images"].append({"id": image, "file_name": file.name, "height": 48, "width": 64})
        sample = Sample(read_image(file), torch.zeros(0, 4), torch.zeros(0).long(), image, (48, 64))
        found = predictor.detect(collate([predictor.transform(sample, Random(0))]))
        corners = clip_boxes_to_image(found.boxes_xyxy[0], (48, 64)).numpy()
        labels = found.labels[0].numpy()
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
        seconds = [np.flatnonzero(labels == label)[1] for label in range(3)]
        for label, box in [
            *enumerate(boxes[place] for place in seconds),
            *enumerate([[1, 2, 9, 9]] * 3),
        ]:
            number = len(content["annotations"]) + 1
            row = {"id": number, "image_id": image, "category_id": list(KEPT)[label], "bbox": box}
            content["annotations"].append(row)
    (folder / "val.json").write_text(json.dumps(content))
    return folder


def categories(names: dict[int, str]) -> list[dict]:
    return [{"id": number, "name": name} for number, name in names.items()]


def change(data: Path, names: dict[int, str], ids: dict[int, int] | None = None) -> None:
    """Gives the data set these categories, and their boxes the new ids."""
    content = json.loads((data / "val.json").read_text())
    content["categories"] = categories(names)
    for box in content["annotations"]:
        box["category_id"] = (ids or {}).get(box["category_id"], box["category_id"])
    (data / "val.json").write_text(json.dumps(content))


def scored(directory: Path, data: Path) -> dict[str, Any]:
    """A detector's figures where its classes are the data set's categories one by one."""
    dataset = CocoDataset.from_folder(data, "val", Transform(64, "none"))
    batches = Loader(dataset, BatchSampler(len(dataset), 4, shuffle=False))
    detector = prepare(load_detector(directory)[0], "32")
    scorer = Scorer(data / "val.json", tuple(KEPT), MatchCost())
    for batch in batches:
        scorer.add(detector, batch)
    return scorer.finish()[0]


def test_classes_without_a_category_take_no_detections_place(
    converted: Path, cut: Path, data: Path
) -> None:
    ours = evaluate_run(converted, data, image_size=64, device="cpu")
    assert ours == evaluate_run(cut, data, device="cpu")
    added = ("confusion", "skipped", "notes")
    assert {key: ours[key] for key in ours if key not in added} == scored(cut, data)
    assert ours["per_class"].keys() == set(KEPT.values())
    assert all(0 < AP < 1 for AP in ours["per_class"].values())


def test_categories_of_other_ids_are_known_by_name(converted: Path, data: Path) -> None:
    before = evaluate_run(converted, data, image_size=64, device="cpu")
    change(data, {2: "toothbrush", 18: "person", 40: "dog"}, {1: 18, 18: 40, 90: 2})
    after = evaluate_run(converted, data, image_size=64, device="cpu")
    assert after["per_class"] == before["per_class"]
    assert all(after[name] == pytest.approx(before[name], abs=1e-12) for name in METRICS)


def test_names_that_repeat_in_the_detector_are_told_apart_by_id(
    converted: Path, data: Path
) -> None:
    """Hugging Face calls every unused class N/A."""
    before = evaluate_run(converted, data, image_size=64, device="cpu")
    config = json.loads((converted / "config.json").read_text())
    config["classes"] = [
        "N/A" if name.startswith("unused") or name == "dog" else name for name in config["classes"]
    ]
    (converted / "config.json").write_text(json.dumps(config))
    change(data, KEPT | {18: "N/A"})
    after = evaluate_run(converted, data, image_size=64, device="cpu")
    assert after["per_class"] == {
        ("N/A" if name == "dog" else name): AP for name, AP in before["per_class"].items()
    }


def test_a_category_the_detector_does_not_know_is_named(converted: Path, data: Path) -> None:
    change(data, KEPT | {18: "dodo"})
    with pytest.raises(
        InputError, match=r"val\.json: category 18: name 'dodo' is not a class of the .*; use"
    ) as error:
        evaluate_run(converted, data, image_size=64, device="cpu")
    assert "\n" not in str(error.value)


def test_a_detector_whose_ids_were_not_saved_is_matched_by_name(
    converted: Path, data: Path
) -> None:
    before = evaluate_run(converted, data, image_size=64, device="cpu")
    config = json.loads((converted / "config.json").read_text())
    del config["category_ids"]
    (converted / "config.json").write_text(json.dumps(config))
    assert evaluate_run(converted, data, image_size=64, device="cpu") == before
