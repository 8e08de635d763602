"""An evaluation reads the data as the run did, and gives what `predict` attains."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from od_detr.cli import main
from od_detr.data.folders import choices_of
from od_detr.data.formats.choices import Choices
from od_detr.detectors import build_detector, save_detector
from od_detr.errors import InputError
from od_detr.evaluation import analysis
from od_detr.evaluation.coco import detections_to_coco, evaluate_detections
from od_detr.evaluation.pairing import paired
from od_detr.inference import evaluate
from od_detr.inference.evaluate import evaluate_run, run_choices
from od_detr.inference.predictor import Predictor
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.record.run_config import write_config


def test_the_data_options_are_those_of_the_run(
    options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    chosen = options(
        val_fraction=0.4,
        group=r"v\d+",
        classes=["a", "b"],
        difficult="keep",
        val_data=str(tmp_path),
    )
    run = tmp_path / "run"
    write_config(chosen, RunFiles(run).config)
    assert run_choices(run, Path(chosen.data)) == choices_of(chosen)
    elsewhere = run_choices(run, tmp_path / "other")
    assert elsewhere == replace(choices_of(chosen), val_data=None)


@pytest.mark.parametrize(
    ("trained", "evaluated", "same"),
    [("a.yaml", "a.yaml", True), ("a.yaml", "b.yaml", False), ("a.yaml", ".", True)],
)
def test_two_yaml_files_of_a_folder_are_two_data_sets(
    trained: str,
    evaluated: str,
    same: bool,
    options: Callable[..., TrainOptions],
    tmp_path: Path,
) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("")
    run = tmp_path / "run"
    chosen = options(data=str(tmp_path / trained), val_data=str(tmp_path / "other"))
    write_config(chosen, RunFiles(run).config)
    assert (run_choices(run, tmp_path / evaluated).val_data is not None) == same


def test_a_saved_detector_without_a_run_has_the_defaults(tmp_path: Path) -> None:
    assert run_choices(tmp_path, tmp_path) == Choices()


# ---- what training and doctor accept -------------------------------------------------------------


def _content(data: Path) -> dict:
    return json.loads((data / "val.json").read_text())


def edited(data: Path, change: Callable[[dict], None]) -> None:
    change(content := _content(data))
    (data / "val.json").write_text(json.dumps(content))


@pytest.mark.parametrize("place", [0, 2])
def test_a_category_without_boxes_need_not_be_a_class_of_the_detector(
    untrained: Path, mixed: tuple[Path, list[dict]], place: int
) -> None:
    data, _ = mixed
    before = evaluate_run(untrained, data, device="cpu")
    extra = {"id": 3 * place, "name": "fox"}
    edited(data, lambda content: content["categories"].insert(place, extra))
    assert evaluate_run(untrained, data, device="cpu") == before
    edited(data, lambda content: content["annotations"][0].update(category_id=extra["id"]))
    with pytest.raises(InputError, match=r"category \d: name 'fox' is not a class of the detector"):
        evaluate_run(untrained, data, device="cpu")


def test_a_split_need_not_list_all_classes_that_its_run_chose(
    untrained: Path, mixed: tuple[Path, list[dict]], options: Callable[..., TrainOptions]
) -> None:
    data, _ = mixed
    cats = [each for each in _content(data)["annotations"] if each["category_id"] == 1]
    listed = {"annotations": cats, "categories": [{"id": 1, "name": "cat"}]}
    edited(data, lambda content: content.update(listed))
    before = evaluate_run(untrained, data, device="cpu")
    run = RunFiles(untrained.parent / "run")
    write_config(options(data=str(data), classes=["cat", "dog"]), run.config)
    untrained.rename(run.best)
    assert evaluate_run(run.directory, data, device="cpu") == before
    write_config(options(data=str(data), classes=["dog"]), run.config)
    with pytest.raises(InputError, match=r"--classes dog: .*val\.json has no such class"):
        evaluate_run(run.directory, data, device="cpu")


# ---- what predict attains ------------------------------------------------------------------------


SHAPES = [(60, 80), (80, 60), (64, 64), (60, 80), (50, 90)]
SIZES = {
    "backbone": "resnet18",
    "backbone_weights": "none",
    "backbone_options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]},
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "queries": 12,
    "feedforward": 64,
    "num_levels": 3,
}


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    detector = build_detector("deformable-detr-plus", 2, **SIZES)
    folder = tmp_path / "detector"
    save_detector(detector, folder, ["cat", "dog"], image_size=64, threshold=0.25)
    return folder


@pytest.fixture
def mixed(untrained: Path, tmp_path: Path) -> tuple[Path, list[dict]]:
    """Images of mixed shapes, whose objects are some of the boxes that `predict` gives.

    Also all that it gives, as COCO results.
    """
    folder, rng = tmp_path / "mixed", np.random.default_rng(0)
    (folder / "val").mkdir(parents=True)
    predictor = Predictor.from_run(untrained, device="cpu", precision="32")
    images, objects, results = [], [], []
    for number, (height, width) in enumerate(SHAPES):
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "val" / f"{number}.png")
        images.append(
            {"id": number * 7, "file_name": f"{number}.png", "height": height, "width": width}
        )
        found = predictor.predict(pixels, threshold=0.0)
        rows = detections_to_coco(found, number * 7, predictor.category_ids)
        results += rows
        large = [row for row in rows if min(row["bbox"][2:]) > 1]
        objects += [large[place] for place in (1, len(large) // 2)]
    for number, each in enumerate(objects, 1):
        objects[number - 1] = {**each, "id": number}
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))
    return folder, results


def test_a_detector_outside_a_run_does_not_know_its_data(untrained: Path) -> None:
    with pytest.raises(InputError, match="does not say which data it was trained on; give --data"):
        evaluate_run(untrained, device="cpu")


def test_the_result_says_how_the_data_was_divided(
    untrained: Path, mixed: tuple[Path, list[dict]]
) -> None:
    data, _ = mixed
    assert evaluate_run(untrained, data, device="cpu")["notes"] == []
    (data / "val.json").rename(data / "annotations.json")
    (data / "val").rename(data / "images")
    (note,) = evaluate_run(untrained, data, device="cpu")["notes"]
    assert re.search(r"has no validation split; \d of 5 images are taken for validation", note)


@pytest.mark.slow
def test_ap_is_what_predict_attains_at_every_batch_size(
    untrained: Path, mixed: tuple[Path, list[dict]]
) -> None:
    data, results = mixed
    expected = evaluate_detections(data / "val.json", results)["AP"]
    assert 0.01 < expected < 1
    for batch_size in (1, 2, 5):
        found = evaluate_run(untrained, data, device="cpu", batch_size=batch_size)
        assert found["AP"] == pytest.approx(expected, abs=1e-6)


def test_the_written_results_are_scored_by_pycocotools(
    untrained: Path, mixed: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    data, expected = mixed
    output = tmp_path / "new folder" / "results.json"
    ours = evaluate_run(untrained, data, device="cpu", output=output)
    written = json.loads(output.read_text())
    assert len(written) == len(expected)
    assert evaluate_detections(data / "val.json", written)["AP"] == pytest.approx(ours["AP"])
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(data / "val.json")).loadRes(str(output))
    assert len(loaded.anns) == len(written)


@pytest.mark.parametrize(
    ("content", "workers"),
    [(b"version https://git-lfs", 0), (b"version https://git-lfs", 1), (None, 1), ("gone", 0)],
)
@pytest.mark.slow
def test_an_unreadable_image_stops_an_evaluation_or_is_left_out_with_its_objects(
    content: bytes | str | None,
    workers: int,
    untrained: Path,
    mixed: tuple[Path, list[dict]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another kind of file is seen in the header, cut pixels when the image is decoded."""
    data, _ = mixed
    damaged = data / "val" / "1.png"
    if isinstance(content, str):
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:400] if content is None else content)
    with pytest.raises(InputError, match=r"val\.json: image 7: .*1\.png"):
        evaluate_run(untrained, data, device="cpu", workers=workers)
    skip = ["--on-unreadable", "skip", "--workers", str(workers)]
    command = ["evaluate", str(untrained), "--data", str(data), "--device", "cpu", "--json", *skip]
    assert main(command) == 4
    said = capsys.readouterr()
    assert re.search(r"^skipped: .*val\.json: image 7: .*1\.png", said.err, re.MULTILINE)
    found = json.loads(said.out.splitlines()[-1])
    file = data / "val.json"
    content_left = json.loads(file.read_text())
    for field, owner in (("images", "id"), ("annotations", "image_id")):
        content_left[field] = [each for each in content_left[field] if each[owner] != 7]
    file.write_text(json.dumps(content_left))
    whole = evaluate_run(untrained, data, device="cpu")
    assert whole["skipped"] == []
    for name in ("AP", "AP50", "AR100", "errors", "confusion", "best_threshold"):
        assert found[name] == whole[name]


@pytest.mark.parametrize("output", ["file/results.json", "folder"])
def test_an_output_that_cannot_be_written_is_named_first(output: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"--output .*{output}"):
        evaluate_run(tmp_path / "no run", tmp_path, output=tmp_path / output)


@pytest.mark.slow
def test_the_threshold_is_that_of_the_detector_unless_one_is_given(
    untrained: Path, mixed: tuple[Path, list[dict]]
) -> None:
    data, _ = mixed
    assert evaluate_run(untrained, data, device="cpu")["threshold"] == 0.25
    given = evaluate_run(untrained, data, device="cpu", threshold=0.6)
    assert given["threshold"] == 0.6
    matrix = np.array(given["confusion"]["matrix"])
    assert matrix[:-1].sum() == len(SHAPES) * 2  # each object is in one cell
    config = json.loads((untrained / "config.json").read_text())
    del config["threshold"]
    (untrained / "config.json").write_text(json.dumps(config))
    found = evaluate_run(untrained, data, device="cpu")
    assert found["threshold"] == found["best_threshold"]


def test_detections_are_paired_with_the_objects_once(
    untrained: Path, mixed: tuple[Path, list[dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for module in (analysis, evaluate):
        monkeypatch.setattr(module, "paired", lambda *given: calls.append(given) or paired(*given))
    evaluate_run(untrained, mixed[0], device="cpu")
    assert len(calls) == 1


def test_predict_uses_the_threshold_of_the_detector(untrained: Path) -> None:
    predictor = Predictor.from_run(untrained, device="cpu", precision="32")
    image = Image.new("RGB", (64, 64))
    everything = predictor.predict(image, threshold=0.0)
    assert predictor.threshold == 0.25
    assert len(predictor.predict(image)) == (everything.confidence >= 0.25).sum()
    config = untrained / "config.json"
    config.write_text(config.read_text().replace("0.25", "2.5"))
    with pytest.raises(InputError, match=r"config\.json.*threshold 2\.5"):
        Predictor.from_run(untrained)
