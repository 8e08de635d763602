"""The built-in scenes are crowded, honest and the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from od_detr.data.dataset import CocoDataset
from od_detr.data.scenes import CLASSES, LEAST_VISIBLE, Scene, render_scene, render_scenes
from od_detr.errors import InputError


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene("train", index) for index in range(300)]


@pytest.mark.slow
def test_a_scene_depends_on_seed_split_index_and_size_alone(scenes: list[Scene]) -> None:
    np.random.seed(1)
    again = render_scene("train", 17)
    assert np.array_equal(again.pixels, scenes[17].pixels)
    assert again.boxes_xyxy == scenes[17].boxes_xyxy
    others = [render_scene("val", 17), render_scene("train", 18), render_scene("train", 17, seed=1)]
    assert all(not np.array_equal(other.pixels, again.pixels) for other in others)


@pytest.mark.slow
def test_no_scene_of_validation_is_one_of_training(scenes: list[Scene]) -> None:
    seen = {scene.pixels.tobytes() for scene in scenes}
    assert len(seen) == len(scenes)
    assert not seen & {render_scene("val", index).pixels.tobytes() for index in range(100)}


@pytest.mark.slow
def test_a_scene_holds_three_to_ten_objects_of_all_classes(scenes: list[Scene]) -> None:
    assert {len(scene.labels) for scene in scenes} == set(range(3, 11))
    share = np.bincount([label for scene in scenes for label in scene.labels]) / sum(
        len(scene.labels) for scene in scenes
    )
    assert len(share) == len(CLASSES) >= 5
    assert share.min() > 0.7 / len(CLASSES)


def test_at_least_half_of_the_objects_overlap_another(scenes: list[Scene]) -> None:
    overlaps = []
    for scene in scenes:
        boxes = torch.tensor(scene.boxes_xyxy)
        overlaps.append(box_iou(boxes, boxes).fill_diagonal_(0).amax(1))
    overlap = torch.cat(overlaps)
    assert (overlap > 0.1).double().mean() > 0.5
    assert (overlap == 0).any(), "some objects stand alone"


def test_every_labelled_object_can_be_seen_and_occlusion_is_common(scenes: list[Scene]) -> None:
    visible = np.concatenate([scene.visible for scene in scenes])
    assert visible.min() >= LEAST_VISIBLE >= 0.35
    assert (visible < 0.9).mean() > 0.3


def test_boxes_hold_all_that_is_seen_and_fit_the_front_object_tightly(scenes: list[Scene]) -> None:
    for scene in scenes:
        for index, (left, top, right, bottom) in enumerate(scene.boxes_xyxy):
            assert 0 <= left < right <= 128
            assert 0 <= top < bottom <= 128
            rows, columns = np.nonzero(scene.owner == index)
            slack = np.array(
                [
                    columns.min() - left,
                    rows.min() - top,
                    right - columns.max() - 1,
                    bottom - rows.max() - 1,
                ]
            )
            assert slack.min() >= -1
        # Nothing hides the last object; a sharp tip covers less than half of its outermost pixels.
        assert slack.max() < 4


def test_colour_says_nothing_about_the_class(scenes: list[Scene]) -> None:
    colours = [[] for _ in CLASSES]
    for scene in scenes:
        for index, label in enumerate(scene.labels):
            colours[label].append(scene.image[scene.owner == index].mean(0))
    means = np.array([np.mean(group, 0) for group in colours])
    errors = np.array([np.std(group, 0) / len(group) ** 0.5 for group in colours])
    assert (np.abs(means - np.concatenate(colours).mean(0)) < 4 * errors).all()


@pytest.mark.parametrize("size", [32, 200])
def test_other_sizes_have_scenes_just_as_full(size: int) -> None:
    found = [render_scene("val", index, size) for index in range(30)]
    assert all(scene.pixels.shape == (size, size, 3) for scene in found)
    assert min(len(scene.labels) for scene in found) >= 3


def test_the_files_are_a_coco_data_set(tmp_path: Path) -> None:
    render_scenes(tmp_path / "data", train=6, val=3, size=64, seed=2)
    for split, count in (("train", 6), ("val", 3)):
        dataset = CocoDataset.from_folder(tmp_path / "data", split)
        assert (len(dataset), dataset.classes) == (count, CLASSES)
        assert (dataset.dropped.crowd, dataset.dropped.degenerate, dataset.dropped.clipped) == (
            0,
            0,
            0,
        )
        for index in range(count):
            scene, sample = render_scene(split, index, 64, 2), dataset[index]
            assert np.array_equal(sample.image.permute(1, 2, 0), scene.pixels)
            assert sample.labels.tolist() == scene.labels


def test_more_scenes_begin_with_the_same_ones(tmp_path: Path) -> None:
    render_scenes(tmp_path / "few", train=2, val=1, size=48)
    render_scenes(tmp_path / "many", train=4, val=1, size=48)
    for index in range(2):
        name = f"images/train/{index:06d}.png"
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("mine")
    with pytest.raises(InputError, match="other files") as error:
        render_scenes(tmp_path, 1, 1)
    assert str(tmp_path) in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
    with pytest.raises(InputError, match="other files"):
        render_scenes(tmp_path / "train.json", 1, 1)


def test_scenes_of_other_settings_are_never_overwritten(tmp_path: Path) -> None:
    render_scenes(tmp_path / "data", 2, 1, size=48)
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.*")}
    with pytest.raises(InputError, match="other settings"):
        render_scenes(tmp_path / "data", 2, 1, size=48, seed=1)
    assert before == {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.*")}


def test_an_interrupted_rendering_is_completed(tmp_path: Path, monkeypatch) -> None:
    render_scenes(tmp_path / "whole", 3, 2, size=48)
    with monkeypatch.context() as broken:
        saved = []
        save = Image.Image.save

        def interrupted(self, *args, **kwargs):
            saved.append(args)
            if len(saved) == 4:
                raise KeyboardInterrupt
            return save(self, *args, **kwargs)

        broken.setattr(Image.Image, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render_scenes(tmp_path / "cut", 3, 2, size=48)
    assert not (tmp_path / "cut" / "val.json").exists()
    render_scenes(tmp_path / "cut", 3, 2, size=48)
    for path in (tmp_path / "whole").rglob("*.*"):
        assert (
            tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        ).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("bad", [{"size": 8}, {"seed": -1}, {"train": 0}])
def test_settings_that_draw_nothing_are_refused(tmp_path: Path, bad: dict) -> None:
    with pytest.raises(InputError, match="give"):
        render_scenes(tmp_path / "data", **{"train": 1, "val": 1, **bad})
    assert not (tmp_path / "data").exists()


def test_the_annotations_say_how_much_is_visible(tmp_path: Path) -> None:
    render_scenes(tmp_path / "data", 2, 1, size=64)
    document = json.loads((tmp_path / "data" / "train.json").read_text())
    assert all(LEAST_VISIBLE - 1e-3 <= box["visible"] <= 1 for box in document["annotations"])
