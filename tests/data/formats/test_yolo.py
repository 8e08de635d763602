"""YOLO data sets that are arranged or written in unusual ways are read right, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import pytest
from tests.data.formats.test_layouts import write, yaml, yolo, yolo_pair

from od_detr.data.folders import find_readers, open_split
from od_detr.errors import InputError

ROBOFLOW = "train: ../train/images\nval: ../valid/images"


def test_a_folder_that_is_not_there_is_not_the_folder_of_all_images(tmp_path: Path) -> None:
    """Roboflow's YAML file, and the images moved to images/train and images/val."""
    yolo_pair(tmp_path, "{}/train", "{}/val", f"{ROBOFLOW}\ntest: ../test/images")
    with pytest.raises(InputError, match=r"data\.yaml: train: '\.\./train/images' is not there"):
        find_readers(tmp_path)


@pytest.mark.parametrize("text", ["train: /c/D2/images\nval: /c/D2/images", "train: ds/images"])
def test_a_folder_of_all_images_may_have_the_path_of_another_computer(
    text: str, tmp_path: Path
) -> None:
    yolo_pair(tmp_path, "{}", "{}", text)
    for split in find_readers(tmp_path):
        assert len(find_readers(tmp_path)[split]().labels) == 4
    (tmp_path / "images" / "val2017").mkdir()
    with pytest.raises(InputError, match=r"train: '.*/images' is not there"):
        find_readers(tmp_path)


def test_darknet_may_name_the_folder_of_all_images(tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}", "{}", None)
    write(tmp_path / "obj.data", "train = data/images\nnames = data/classes.txt\nvalid =\n")
    assert len(find_readers(tmp_path)["train"]().labels) == 4
    assert find_readers(tmp_path).keys() == {"train"}
    write(tmp_path / "obj.data", "train = data/images\nvalid = valid/images\n")
    with pytest.raises(InputError, match=r"obj\.data: val: 'valid/images' is not there"):
        find_readers(tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("train: images\nval: ../valid/images", r"val: '\.\./valid/images' is not there"),
        ("train: /x/images\nval: images", "train: '/x/images' is not there, and .* is val's"),
    ],
)
def test_a_split_that_is_not_there_is_named_and_is_not_the_other(
    text: str, line: str, tmp_path: Path
) -> None:
    yolo_pair(tmp_path, "{}", "{}", text)
    with pytest.raises(InputError, match=line):
        find_readers(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["train: /x/train/pets\nval: /x/val/pets", "train: pets/images\nval: /x/val/pets"],
)
def test_two_paths_that_end_in_one_folder_are_refused(text: str, tmp_path: Path) -> None:
    yolo_pair(tmp_path / "pets", "{}", "{}", None)
    yaml(tmp_path, text)
    with pytest.raises(InputError, match=r"val: '/x/val/pets' is not there, and .* is train's"):
        find_readers(tmp_path)


def test_a_test_folder_that_is_another_split_s_is_none(tmp_path: Path) -> None:
    text = "train: images/train\nval: images/val\ntest: /x/test/images/val"
    yolo_pair(tmp_path, "{}/train", "{}/val", text)
    assert find_readers(tmp_path).keys() == {"train", "val"}


def test_two_splits_may_be_the_same_images_if_they_are_called_alike(tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}/all", "{}/all", "train: /x/images/all\nval: /x/images/all")
    assert len(open_split(tmp_path, "val").names) == 4
    yaml(tmp_path, "train: images/all\nval: ./images/all")
    assert len(open_split(tmp_path, "val").names) == 4


@pytest.mark.parametrize("val", ["../images/all", " ../images/./all ", "..\\\\images\\\\all"])
def test_a_slash_at_the_end_makes_no_other_path(val: str, tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}/all", "{}/all", f'train: ../images/all/\nval: "{val}"')
    assert len(open_split(tmp_path, "val").names) == 4


@pytest.mark.parametrize("start", ["", "/x/"])
def test_thousands_of_images_in_a_yaml_file_are_compared_at_once(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 1500
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for n in range(number):
            (tmp_path / split / f"{n}.png").touch()
    lists = (
        f"{split}: [{', '.join(f'{start}{split}/{n}.png' for n in range(number))}]"
        for split in ("train", "val")
    )
    yaml(tmp_path, "\n".join(lists))
    calls, parents = 0, PurePath.parents.fget  # type: ignore[attr-defined]

    def counting(path: Path) -> Sequence[Path]:
        nonlocal calls
        calls += 1
        return parents(path)

    monkeypatch.setattr(PurePath, "parents", property(counting))
    assert find_readers(tmp_path).keys() == {"train", "val"}
    assert calls < 10 * number


@pytest.mark.parametrize("label", ["nan", "inf", "-inf", "1e300", "99999999999999999999", "0.5"])
def test_a_class_that_is_no_number_is_a_finding(label: str, tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}/train", "{}/val", "train: images/train\nval: images/val")
    (tmp_path / "labels" / "train" / "a.txt").write_text(f"{label} 0.5 0.5 0.2 0.2\n")
    (found,) = open_split(tmp_path, "train").findings
    assert (found.code, found.severity, found.record) == ("label-row", "error", "line 1")
    assert found.source.endswith("a.txt")


def test_images_in_a_linked_folder_are_read(tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}/train/own", "{}/val", "train: images/train\nval: images/val")
    (tmp_path / "images" / "train" / "own").rename(tmp_path / "elsewhere")
    link = tmp_path / "images" / "train" / "own"
    link.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    read = open_split(tmp_path, "train")
    assert [Path(path).stem for path in read.paths] == list("abc")
    assert len(read.labels) == 3


def test_a_blank_line_among_the_classes_has_a_number_of_its_own(tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}/train", "{}/val", None)
    write(tmp_path / "classes.txt", "cat\n \ndog\n\n \n")
    assert find_readers(tmp_path)["train"]().classes == ("cat", "1", "dog")


def test_classes_beside_the_labels_of_training_are_those_of_all_splits(tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}/train", "{}/val", None)
    (tmp_path / "classes.txt").rename(tmp_path / "labels" / "train" / "classes.txt")
    for split in ("train", "val"):
        read = open_split(tmp_path, split)  # type: ignore[arg-type]
        assert read.classes == ("cat", "dog")
        assert read.findings == ()


def test_labels_of_another_split_beside_are_not_loose(tmp_path: Path) -> None:
    yolo(tmp_path / "images", tmp_path / "labels", "abcd")
    for split, stems in (("train", "abc"), ("val", "d")):
        write(tmp_path / f"{split}.txt", "".join(f"images/{stem}.png\n" for stem in stems))
    yaml(tmp_path, "train: train.txt\nval: val.txt")
    assert open_split(tmp_path, "train").findings == ()
    (tmp_path / "labels" / "loose.txt").touch()
    (found,) = open_split(tmp_path, "train").findings
    assert (found.code, found.count) == ("label-without-image", 1)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (17, 3)])
def test_a_pose_is_its_box(shape: tuple[int, int], tmp_path: Path) -> None:
    text = f"train: images/train\nval: images/val\nkpt_shape: [{shape[0]}, {shape[1]}]"
    yolo_pair(tmp_path, "{}/train", "{}/val", text)
    points = " ".join(["0.45"] * (shape[0] * shape[1]))
    file = tmp_path / "labels" / "train" / "a.txt"
    file.write_text(f"0 0.5 0.5 0.2 0.4 {points}\n0 0.5 0.5 0.2 0.4\n")
    read = open_split(tmp_path, "train")
    assert read.findings == ()
    assert read.boxes_xywh[:2].tolist() == [pytest.approx([16, 9, 8, 12])] * 2
    file.write_text(f"0 0.5 0.5 0.2 0.4 {points} 0.5\n")
    assert [each.code for each in open_split(tmp_path, "train").findings] == ["label-row"]


@pytest.mark.parametrize("shape", ["17", "[17]", "[17, 4]", "[a, 2]"])
def test_a_shape_of_keypoints_that_makes_no_sense_is_refused(shape: str, tmp_path: Path) -> None:
    text = f"train: images/train\nval: images/val\nkpt_shape: {shape}"
    yolo_pair(tmp_path, "{}/train", "{}/val", text)
    with pytest.raises(InputError, match=r"data\.yaml: kpt_shape is .*; write the number of"):
        find_readers(tmp_path)
