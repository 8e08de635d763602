"""`--group` keeps images together in every format, and says where it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.formats.test_layouts import BOXES, SIZE, voc, write, yolo

from od_detr.data.folders import open_split
from od_detr.data.formats.choices import Choices
from od_detr.errors import InputError

CAMERAS = 8


# The validation videos of ten with `--val-fraction 0.3`, recorded before folders were searched.
RECORDED = {r"(.+)_": "g", r"^(.*)_\d+": "g", r"([a-z]+)": "g", r"vid([a-z])": "bcdefj"}


def yolo_by_camera(root: Path, camera: str, stems: list[str]) -> None:
    yolo(root / "images" / camera, root / "labels" / camera, stems)
    write(root / "classes.txt", "cat\ndog\n")


def voc_by_camera(root: Path, camera: str, stems: list[str]) -> None:
    voc(root / "JPEGImages" / camera, root / "Annotations" / camera, stems)


def videos(make: Callable[[Path, str, list[str]], None], root: Path) -> None:
    """Two images of each of ten videos, all in one folder."""
    stems = [f"vid{video}_{n}" for video in "abcdefghij" for n in range(2)]
    for stem in stems:
        SIZE[stem], BOXES[stem] = (8, 8), [("cat", 1, 1, 4, 4)]
    make(root, "", stems)


@pytest.fixture(params=[yolo_by_camera, voc_by_camera])
def cameras(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder for each camera, with images that are called alike in all of them."""
    make: Callable[[Path, str, list[str]], None] = request.param
    for n in range(CAMERAS):
        stems = [f"shot_{shot}" for shot in range(3)]
        for stem in stems:
            SIZE[stem], BOXES[stem] = (8, 8), [("cat", 1, 1, 4, 4)]
        make(tmp_path, f"cam{n}", stems)
    return tmp_path


@pytest.mark.parametrize("group", [r"(cam\d+)/", r"(.*)/", r"(.*)/[^/]*$"])
def test_images_are_grouped_by_folder(group: str, cameras: Path) -> None:
    parts = [
        {Path(path).parent.name for path in open_split(cameras, split, Choices(group=group)).paths}
        for split in ("train", "val")
    ]
    assert len(parts[0]) + len(parts[1]) == CAMERAS
    assert parts[0].isdisjoint(parts[1])


def test_an_expression_that_matches_nothing_is_refused(cameras: Path) -> None:
    with pytest.raises(
        InputError, match=r"--group video\(\\d\): matches no image, such as '.*cam0"
    ):
        open_split(cameras, "train", Choices(group=r"video(\d)"))


def test_images_that_do_not_match_are_counted(cameras: Path) -> None:
    train = open_split(cameras, "train", Choices(group=r"(cam[0-5])/"))
    assert "; --group does not match 6 images" in train.findings[-1].problem
    train = open_split(cameras, "train", Choices(group=r"^shot_(\d)"))
    assert "does not match" not in train.findings[-1].problem


@pytest.mark.parametrize("group", RECORDED)
@pytest.mark.parametrize("make", [yolo_by_camera, voc_by_camera])
def test_an_expression_that_matches_names_divides_as_ever(
    make: Callable[[Path, str, list[str]], None], group: str, tmp_path: Path
) -> None:
    videos(make, tmp_path)
    val = open_split(tmp_path, "val", Choices(group=group, val_fraction=0.3))
    assert {Path(path).stem[3] for path in val.paths} == set(RECORDED[group])
    assert len(val.paths) == 2 * len(RECORDED[group])


def test_a_single_group_is_refused_with_the_expression(tmp_path: Path) -> None:
    videos(yolo_by_camera, tmp_path)
    with pytest.raises(InputError, match=r"as --group \(vid\) makes a single group"):
        open_split(tmp_path, "val", Choices(group="(vid)"))


def test_folders_above_the_data_set_are_not_searched(tmp_path: Path) -> None:
    videos(yolo_by_camera, tmp_path / "cam7" / "elsewhere")
    data = tmp_path / "cam8" / "data"
    write(data / "list.txt", "".join(f"{path}\n" for path in sorted(tmp_path.rglob("*.png"))))
    write(data / "data.yaml", "train: list.txt\nnames: [cat, dog]\n")
    with pytest.raises(InputError, match=r"matches no image, such as 'vida_0\.png'"):
        open_split(data, "train", Choices(group=r"(cam7.*)/"))


def test_images_of_one_name_cannot_be_divided_by_it(tmp_path: Path) -> None:
    for camera in range(3):
        yolo_by_camera(tmp_path, f"cam{camera}", ["a"])
    with pytest.raises(InputError, match=r"all its images are called 'a\.png'; .*--group"):
        open_split(tmp_path, "train")
    assert len(open_split(tmp_path, "train", Choices(group="(.*)/")).names) == 2
