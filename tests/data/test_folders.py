"""A split is found in the layouts people have."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.formats.test_layouts import coco, yolo, yolo_pair

from od_detr.data.folders import find_readers, open_split
from od_detr.data.formats.choices import Choices
from od_detr.data.formats.coco_layout import image_folder
from od_detr.errors import InputError


@pytest.mark.parametrize(
    ("split", "annotation", "folder"),
    [
        ("train", "train.json", "images/train"),
        ("train", "train.json", "images"),
        ("val", "val.json", "."),
        ("train", "instances_train.json", "train"),
        ("val", "instances_val2017.json", "val2017"),
        ("train", "annotations/instances_train2017.json", "train2017"),
        ("train", "annotations/instances_train2017.json", "images/train2017"),
        ("val", "annotations/instances_val2017.json", "images/val2017"),
        ("val", "annotations/instances_val.json", "val"),
        ("test", "annotations/test.json", "images"),
        ("train", "train/_annotations.coco.json", "train"),
        ("val", "valid/_annotations.coco.json", "valid"),
    ],
)
def test_every_known_layout_is_found(tmp_path: Path, split, annotation: str, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / annotation).parent.mkdir(exist_ok=True)
    (tmp_path / annotation).touch()
    reader = find_readers(tmp_path)[split]
    assert reader.args[0] == tmp_path / annotation
    assert image_folder(tmp_path, tmp_path / annotation, split) == tmp_path / folder


def test_a_folder_without_annotations_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.json.*instances_train.*data\.yaml.*xml"):
        find_readers(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_readers(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        find_readers(tmp_path / "file")


def test_a_split_that_is_missing_is_said_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "val.json").touch()
    with pytest.raises(InputError, match=r"no train split, only val; add"):
        open_split(tmp_path, "train")
    with pytest.raises(InputError, match=r"no test split, only val; add"):
        open_split(tmp_path, "test")


def test_two_candidates_are_not_guessed_between(tmp_path: Path) -> None:
    (tmp_path / "instances_train2014.json").touch()
    (tmp_path / "instances_train2017.json").touch()
    with pytest.raises(
        InputError, match=r"instances_train2014\.json and instances_train2017\.json"
    ):
        find_readers(tmp_path)


def test_a_coco_file_for_validation_does_not_hide_a_yolo_training_set(tmp_path: Path) -> None:
    """As COCO 2017 is arranged for ultralytics, with the annotations to evaluate on."""
    yolo_pair(tmp_path, "{}/train2017", "{}/val2017", None)
    coco(tmp_path / "annotations" / "instances_val2017.json", tmp_path / "images" / "val2017", "d")
    for split, stems in (("train", "abc"), ("val", "d")):
        lines = [f"./images/{split}2017/{stem}.png\n" for stem in stems]
        (tmp_path / f"{split}2017.txt").write_text("".join(lines))
    text = "path: coco\ntrain: train2017.txt\nval: val2017.txt\nnames: [cat, dog]\n"
    (tmp_path / "coco.yaml").write_text(text)
    assert [Path(path).stem for path in open_split(tmp_path, "train").paths] == list("abc")
    assert find_readers(tmp_path).keys() == {"train", "val"}


def test_a_file_for_validation_alone_is_no_training_set(tmp_path: Path) -> None:
    coco(tmp_path / "annotations" / "instances_val.json", tmp_path / "images", "abcd")
    assert find_readers(tmp_path).keys() == {"val"}
    assert len(open_split(tmp_path, "val").paths) == 4
    with pytest.raises(InputError, match="no train split, only val"):
        open_split(tmp_path, "train")


def test_a_validation_file_is_read_beside_a_yaml_file_whose_training_set_is_elsewhere(
    tmp_path: Path,
) -> None:
    coco(tmp_path / "annotations" / "instances_val2017.json", tmp_path / "val2017", "abcd")
    text = "path: coco\ntrain: train2017.txt\nval: val2017.txt\nnames: [cat, dog]\n"
    (tmp_path / "coco.yaml").write_text(text)
    assert find_readers(tmp_path).keys() == {"val"}
    validation = open_split(tmp_path / "other", "val", Choices(val_data=str(tmp_path)))
    assert (validation.format, len(validation.paths)) == ("coco", 4)


def test_labels_without_splits_do_not_hide_a_file_for_validation(tmp_path: Path) -> None:
    coco(tmp_path / "instances_val.json", tmp_path / "images", "ab")
    yolo(tmp_path / "images", tmp_path / "labels", "abcd")
    read = open_split(tmp_path, "val")
    assert (read.format, len(read.paths)) == ("coco", 2)
    assert list(read.classes) == ["cat", "dog"]


def test_a_layout_that_is_wrong_is_reported_where_no_other_fits(tmp_path: Path) -> None:
    (tmp_path / "coco.yaml").write_text("train: train2017.txt\nnames: [cat, dog]\n")
    with pytest.raises(InputError, match=r"train2017\.txt' is not there"):
        find_readers(tmp_path)
