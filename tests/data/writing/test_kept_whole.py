"""A conversion loses nothing: neither classes, nor boxes, nor the folder that it writes to."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from od_detr.data.folders import find_readers, open_split
from od_detr.data.writing.conversion import convert_data
from od_detr.errors import InputError

SIZE = (40, 30)


def image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (90, 90, 90)).save(file)


def coco(root: Path, split: str, entries: list[tuple[str, list[list[float]]]]) -> None:
    """One class; an entry for each name, with its boxes."""
    for name, _ in entries:
        image(root / "images" / name)
    images = [
        {"id": n, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
        for n, (name, _) in enumerate(entries, 1)
    ]
    boxes = [
        {"image_id": n, "category_id": 4, "bbox": box}
        for n, (_, boxes) in enumerate(entries, 1)
        for box in boxes
    ]
    categories = [{"id": 4, "name": "cat", "supercategory": "animal"}]
    document = {"images": images, "annotations": boxes, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(document))


def voc(root: Path, stem: str, names: list[str]) -> None:
    image(root / f"{stem}.png")
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{3 + n}</xmin><ymin>2</ymin><xmax>20</xmax>"
        "<ymax>20</ymax></bndbox></object>"
        for n, name in enumerate(names)
    )
    (root / f"{stem}.xml").write_text(f"<annotation>{objects}</annotation>")


def test_classes_have_the_same_numbers_in_all_splits(tmp_path: Path) -> None:
    voc(tmp_path / "voc" / "train", "a", ["cat", "dog", "owl"])
    voc(tmp_path / "voc" / "val", "b", ["owl", "cat"])
    convert_data(tmp_path / "voc", "coco", tmp_path / "coco")
    read = [
        json.loads((tmp_path / "coco" / "annotations" / f"instances_{split}.json").read_text())
        for split in ("train", "val")
    ]
    categories = [
        {each["id"]: each["name"] for each in document["categories"]} for document in read
    ]
    assert categories[0] == categories[1] == {1: "cat", 2: "dog", 3: "owl"}
    names = [categories[1][box["category_id"]] for box in read[1]["annotations"]]
    assert names == ["owl", "cat"]


def test_supercategories_and_the_ids_of_the_training_set_are_kept(tmp_path: Path) -> None:
    for split in ("train", "val"):
        coco(tmp_path / "data", split, [(f"{split}/a.png", [[1, 1, 9, 9]])])
    convert_data(tmp_path / "data", "coco", tmp_path / "coco")
    for split in ("train", "val"):
        file = tmp_path / "coco" / "annotations" / f"instances_{split}.json"
        assert json.loads(file.read_text())["categories"] == [
            {"id": 4, "name": "cat", "supercategory": "animal"}
        ]


SHARED: dict[str, tuple[list[tuple[str, list[list[float]]]], dict[str, list[list[float]]]]] = {
    "a stem": (
        [("a.jpg", [[1, 1, 9, 9]]), ("a.png", [[2, 2, 9, 9]]), ("b.png", [])],
        {"a.jpg": [[1, 1, 9, 9]], "a-2.png": [[2, 2, 9, 9]], "b.png": []},
    ),
    "folders called images": (
        [("x/images/a.png", [[1, 1, 9, 9]]), ("y/images/b.png", [[2, 2, 9, 9]])],
        {"x/image/a.png": [[1, 1, 9, 9]], "y/image/b.png": [[2, 2, 9, 9]]},
    ),
    "folders called images and image": (
        [("x/images/a.png", [[1, 1, 9, 9]]), ("x/image/a.png", [[2, 2, 9, 9]])],
        {"image/a.png": [[1, 1, 9, 9]], "image/a-2.png": [[2, 2, 9, 9]]},
    ),
    "two entries of a file": (
        [("a.png", [[1, 1, 9, 9], [5, 5, 4, 4]]), ("a.png", [[2, 2, 9, 9], [1, 1, 9, 9]])],
        {"a.png": [[1, 1, 9, 9], [5, 5, 4, 4], [2, 2, 9, 9]]},
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_yolo_keeps_every_box(name: str, tmp_path: Path) -> None:
    entries, expected = SHARED[name]
    for split in ("train", "val"):
        coco(tmp_path / "data", split, entries)
    made = convert_data(tmp_path / "data", "yolo", tmp_path / "yolo")
    read = open_split(tmp_path / "yolo", "train")
    folder = tmp_path / "yolo" / "images" / "train"
    found = {
        Path(path).relative_to(folder).as_posix(): [
            [round(value, 6) for value in box]
            for box, owner in zip(read.boxes_xywh.tolist(), read.owners.tolist(), strict=True)
            if owner == n
        ]
        for n, path in enumerate(read.paths)
    }
    assert found == expected
    assert made["train"].images == len(expected)
    assert made["train"].boxes == sum(map(len, expected.values()))


def test_what_yolo_cannot_hold_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        coco(tmp_path / "far", split, [("a.png", [[200, 1, 9, 9]])])
        coco(tmp_path / "size", split, [("a.png", [[1, 1, 9, 9]])])
    Image.new("RGB", (50, 20)).save(tmp_path / "size" / "images" / "a.png")
    with pytest.raises(InputError, match=r"train: YOLO cannot hold these boxes \(1 would become 0"):
        convert_data(tmp_path / "far", "yolo", tmp_path / "out")
    with pytest.raises(InputError, match=r"a\.png: is 50 x 20 pixels, but its entry says 40 x 30"):
        convert_data(tmp_path / "size", "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("u.bin", "'.bin' is no suffix of images"),
        ("u", "it has no suffix"),
        (".x/u.png", "'.x' is hidden"),
    ],
)
def test_an_image_that_yolo_would_overlook_is_named(name: str, reason: str, tmp_path: Path) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    coco(data, "train", [("a.png", []), ("b.png", [[1, 1, 9, 9]])])
    file = data / "images" / name
    file.parent.mkdir(exist_ok=True)
    (data / "images" / "b.png").rename(file)
    listed = data / "train.json"
    listed.write_text(listed.read_text().replace("b.png", name))
    expected = f"{file}: YOLO's readers would overlook this image, as {reason}; rename it"
    with pytest.raises(InputError, match=re.escape(expected)):
        convert_data(data, "yolo", output)
    assert not output.exists()
    assert convert_data(data, "coco", output)["train"].boxes == 1


def test_classes_that_yolo_cannot_hold_are_named(tmp_path: Path) -> None:
    coco(tmp_path / "data", "export", [("a.png", []), ("b.png", [[1, 1, 9, 9]])])
    listed = tmp_path / "data" / "export.json"
    listed.write_text(listed.read_text().replace('"cat"', '" cat"'))
    with pytest.raises(InputError, match=r"classes \(\(' cat',\) would become .*\); correct them$"):
        convert_data(tmp_path / "data", "yolo", tmp_path / "out")


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("to", ["coco", "yolo"])
@pytest.mark.parametrize("there", [False, True])
def test_after_an_error_the_output_is_as_before(
    to: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco(tmp_path / "data", "train", [("a.png", [[1, 1, 9, 9]]), ("b.png", [])])
    output = tmp_path / "out"
    if there:
        output.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(InputError, match=r"out: cannot be written \(No space left"):
            convert_data(tmp_path / "data", to, output)  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before
    convert_data(tmp_path / "data", to, output)  # type: ignore[arg-type]
    assert len(open_split(output, "train").names) == 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part"]


def test_an_image_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco(tmp_path / "data", "train", [("a.png", []), ("b.png", [[1, 1, 9, 9]])])
    opened = Path.open

    def refusing(self: Path, *arguments, **more):
        if self.name == "b.png" and arguments == ("rb",):
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(InputError, match=r"b\.png: Permission denied; allow reading it"):
        convert_data(tmp_path / "data", "coco", tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are not UTF-8")
@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_file_names_that_are_not_utf_8_survive(to: str, tmp_path: Path) -> None:
    root, name = tmp_path / "data", os.fsdecode(b"caf\xe9")
    for split in ("train", "val"):
        image(root / "images" / split / f"{name}.png")
        (root / "labels" / split).mkdir(parents=True)
        (root / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    convert_data(root, to, tmp_path / "out")  # type: ignore[arg-type]
    read = open_split(tmp_path / "out", "train")
    assert [Path(path).stem for path in read.paths] == [name]
    assert len(read.labels) == 1


def test_relative_and_absolute_paths_of_one_list_are_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    for stem in "ab":
        image(root / "images" / f"{stem}.png")
    (root / "list.txt").write_text(f"images/a.png\n{root / 'images' / 'b.png'}\n")
    (root / "data.yaml").write_text("train: list.txt\nval: list.txt\nnames: [cat]\n")
    monkeypatch.chdir(tmp_path)
    convert_data(Path("data"), "yolo", Path("out"))
    assert set(find_readers(Path("out"))) == {"train", "val"}
