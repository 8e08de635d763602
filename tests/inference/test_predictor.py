"""`predict` takes what people have, and gives each image the detections of its file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import supervision
import torch
from jaxtyping import config
from PIL import Image

from od_detr.detectors import build_detector
from od_detr.errors import InputError
from od_detr.inference.files import Wanted, predict_files
from od_detr.inference.predictor import Predictor

CLASSES, CATEGORIES = ["red", "green"], [3, 7]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    detector = build_detector(
        "deformable-detr-plus",
        2,
        backbone="resnet18",
        backbone_options={"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)},
        hidden_dim=64,
        encoder_layers=1,
        decoder_layers=2,
        queries=12,
        feedforward=24,
    )
    with torch.no_grad():  # large boxes everywhere, many of them beyond the image
        for head in detector.decoder.heads.boxes:
            head[-1].bias.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    return Predictor(detector, CLASSES, CATEGORIES, image_size=64, precision="32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set of six images in two sizes, ids from 41 on."""
    root = tmp_path_factory.mktemp("data")
    (root / "images" / "val").mkdir(parents=True)
    rng, images = np.random.default_rng(0), []
    for place in range(6):
        height, width = (48, 80) if place % 2 else (64, 64)
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / "val" / f"{place}.png")
        entry = {"id": 41 + place, "file_name": f"{place}.png", "width": width, "height": height}
        images.append(entry)
    categories = [{"id": i, "name": n} for i, n in zip(CATEGORIES, CLASSES, strict=True)]
    content = {"images": images, "annotations": [], "categories": categories}
    (root / "val.json").write_text(json.dumps(content))
    return root / "images" / "val"


def same(left: supervision.Detections, right: supervision.Detections) -> None:
    assert len(left) == len(right) > 0
    np.testing.assert_allclose(left.xyxy, right.xyxy, atol=1e-3)
    np.testing.assert_allclose(left.confidence, right.confidence, atol=1e-5)


def test_an_array_an_image_and_a_tensor_are_detected_like_their_file(
    predictor: Predictor, folder: Path
) -> None:
    file = folder / "1.png"
    expected, image = predictor.predict(file, 0.0), Image.open(file)
    array = np.array(image)
    fixed = np.asarray(image)
    assert not fixed.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(predictor.predict(fixed, 0.0), expected)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    rgba = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
    for source in (str(file), image, image.convert("RGBA"), array, rgba, tensor, tensor / 255):
        same(predictor.predict(source, 0.0), expected)


def test_only_the_classes_asked_for_are_returned(predictor: Predictor, folder: Path) -> None:
    whole, green = predictor.predict(folder / "1.png", 0.0), ["green"]
    expected = whole[whole.class_id == 1]
    assert 0 < len(expected) < len(whole)
    same(predictor.predict(folder / "1.png", 0.0, classes=green), expected)
    same(predictor.predict([folder / "1.png"], 0.0, classes=green)[0], expected)
    found = dict(enumerate(predictor.predict(folder, 0.0, classes=green)))
    same(found[1], expected)
    assert found[1].metadata["path"] == str(folder / "1.png")
    with pytest.raises(InputError, match=r"classes gren: .* did you mean green\?"):
        predictor.predict(folder / "1.png", classes=["gren"])


def test_lists_give_lists_and_folders_and_globs_generators_in_order(
    predictor: Predictor, folder: Path
) -> None:
    files = sorted(folder.glob("*.png"))
    single = [predictor.predict(file, 0.0) for file in files]
    listed = predictor.predict([files[0], *map(Image.open, files[1:])], 0.0, batch_size=4)
    assert isinstance(listed, list)
    for source in (folder, str(folder / "*.png")):
        lazily = predictor.predict(source, 0.0)
        assert isinstance(lazily, Iterator)
        for found in (list(lazily), listed):
            for each, expected in zip(found, single, strict=True):
                same(each, expected)


def test_a_folder_tells_its_files_and_goes_on_after_a_broken_one(
    predictor: Predictor, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0.png", "1.png", "3.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "2.png").write_text("no image")
    found = list(predictor.predict(tmp_path, 0.0, batch_size=2))
    assert [Path(each.metadata["path"]).name for each in found] == [f"{n}.png" for n in range(4)]
    assert len(found[2]) == 0
    assert "2.png" in found[2].metadata["error"]
    assert ["error" in each.metadata for each in found] == [False, False, True, False]
    for name, each in ((0, found[0]), (1, found[1]), (3, found[3])):
        same(each, predictor.predict(folder / f"{name}.png", 0.0))
    said = capsys.readouterr().err
    assert said.startswith("skipped: ")
    assert "2.png" in said
    assert said.count("\n") == 1


def test_threads_get_the_results_of_their_own_images(predictor: Predictor, folder: Path) -> None:
    files = sorted(folder.glob("*.png")) * 3
    expected = [predictor.predict(file, 0.0) for file in files]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda file: predictor.predict(file, 0.0), files))
    for left, right in zip(found, expected, strict=True):
        same(left, right)


def test_it_works_inside_an_inference_slicer(predictor: Predictor) -> None:
    image = np.random.default_rng(1).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    slicer = supervision.InferenceSlicer(
        callback=lambda part: predictor.predict(part, 0.0), slice_wh=64, overlap_wh=16
    )
    assert len(slicer(image)) > 0


def test_boxes_end_at_the_border_of_the_image(predictor: Predictor, folder: Path) -> None:
    boxes = predictor.predict(folder / "1.png", 0.0).xyxy
    assert boxes.min() == 0
    assert boxes[:, 2].max() == 80
    assert boxes[:, 3].max() == 48


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((3, 8, 8), np.uint8), "shape"),
        (torch.zeros(8, 8, 3), "shape"),
        (torch.full((3, 8, 8), 2.0), "0 to 1"),
        ("https://example.org/a.jpg", "download"),
        (["http://example.org/a.jpg"], "download"),
        (7.5, "float"),
    ],
)
def test_what_is_no_image_is_refused_on_one_line(
    predictor: Predictor, source: object, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        predictor.predict(source)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_score_that_no_detection_has_is_refused(
    predictor: Predictor, folder: Path, threshold: object
) -> None:
    with pytest.raises(InputError, match="threshold"):
        predictor.predict(folder / "1.png", threshold)


def test_a_score_may_be_a_number_of_numpy(
    predictor: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # it asks for Python's float
    low, high = (len(predictor.predict(folder / "1.png", np.float32(t))) for t in (0.0, 1.0))
    assert low > high


def test_an_unreadable_image_is_skipped_and_counted_and_the_others_are_written(
    predictor: Predictor, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("0.png", "1.png"):
        (images / name).write_bytes((folder / name).read_bytes())
    (images / "0b.png").write_bytes((folder / "0.png").read_bytes()[:500])
    (images / "._0.png").write_bytes(b"a resource fork")
    result = predict_files(predictor, [str(images)], tmp_path / "out", Wanted(0.0))
    assert result["skipped"] == [str(images / "0b.png")]
    assert result["images"] == 2
    assert str(images / "0b.png") in capsys.readouterr().err
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["file_name"] for row in rows} == {str(images / f"{n}.png") for n in (0, 1)}
    assert len(rows) == result["detections"] > 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0.jpg",
        "1.jpg",
        "detections.json",
    ]


def test_detections_of_a_coco_split_load_with_pycocotools(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    predict_files(predictor, [str(folder)], tmp_path / "out", Wanted(0.0))
    truth = coco.COCO(str(folder.parents[1] / "val.json"))
    results = truth.loadRes(str(tmp_path / "out" / "detections.json"))
    assert set(results.getImgIds()) == set(range(41, 47))
    assert {row["category_id"] for row in results.anns.values()} <= set(CATEGORIES)


def test_the_file_is_whole_after_an_interruption(
    predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = predictor.predict_all, []

    def interrupted(*args: object) -> list[supervision.Detections]:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(predictor, "predict_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, [str(folder)], tmp_path / "out", Wanted(0.0, batch_size=1))
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {41, 42}


def test_only_more_than_one_batch_has_a_bar(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals: list[int | None] = []

    def counted(images: list[Image.Image], total: int | None) -> list[Image.Image]:
        totals.append(total)
        return images

    monkeypatch.setattr("od_detr.inference.predictor.with_bar", counted)
    frame = Image.new("RGB", (64, 64))
    for images in ([frame], [frame] * 2, [frame] * 3):
        assert len(predictor.predict(images, batch_size=2)) == len(images)
    assert totals == [3]


def test_auto_is_the_threshold_of_the_detector(predictor: Predictor, folder: Path) -> None:
    assert predictor.chosen("auto") == predictor.chosen(None) == predictor.threshold
    with pytest.raises(InputError, match="must be a number from 0 to 1, or auto"):
        predictor.predict(folder / "1.png", 1.5)
    with pytest.raises(InputError, match="batch_size must be a whole number"):
        predictor.predict([folder / "1.png"], 0.5, batch_size=0)


def test_a_path_with_nul_is_one_line(predictor: Predictor) -> None:
    with pytest.raises(InputError, match="embedded null byte; check the path"):
        predictor.predict("a\0b.jpg")
