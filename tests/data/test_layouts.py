"""A folder opens as people have it: COCO, YOLO and Pascal VOC, divided or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import supervision
from PIL import Image

from od_detr.data.folders import find_readers, open_split
from od_detr.data.formats.choices import Choices

SIZE = {"a": (30, 40), "b": (48, 32), "c": (20, 20), "d": (24, 36)}
BOXES = {"a": [("cat", 2, 3, 20, 15)], "b": [("dog", 1, 1, 9, 40), ("cat", 10, 20, 16, 8)], "c": []}
BOXES["d"] = [("dog", 4, 4, 30, 16)]
NAMES = ["cat", "dog"]


def image(folder: Path, stem: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[stem][::-1], (90, 90, 90)).save(folder / f"{stem}.png")
    return folder / f"{stem}.png"


def coco(file: Path, images: Path, stems: str, prefix: str = "") -> None:
    for stem in stems:
        image(images, stem)
    entries = [
        {"id": n, "file_name": f"{prefix}{s}.png", "height": SIZE[s][0], "width": SIZE[s][1]}
        for n, s in enumerate(stems, 1)
    ]
    boxes = [
        {"image_id": n, "category_id": 1 + NAMES.index(name), "bbox": box}
        for n, s in enumerate(stems, 1)
        for name, *box in BOXES[s]
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(NAMES, 1)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": entries, "annotations": boxes, "categories": categories}))


def yolo(images: Path, labels: Path, stems: str, empty_files: bool = True) -> None:
    labels.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        image(images, stem)
        high, wide = SIZE[stem]
        rows = [
            f"{NAMES.index(name)} {(x + w / 2) / wide} {(y + h / 2) / high} {w / wide} {h / high}"
            for name, x, y, w, h in BOXES[stem]
        ]
        if rows or empty_files:
            (labels / f"{stem}.txt").write_text("\n".join(rows))


def voc(images: Path, xmls: Path, stems: str, size: bool = True) -> None:
    xmls.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        image(images, stem)
        high, wide = SIZE[stem] if size else (0, 0)
        objects = "".join(
            f"<object><name>{name}</name><difficult>{int(name == 'dog')}</difficult><bndbox>"
            f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w + 1}</xmax><ymax>{y + h + 1}</ymax>"
            "</bndbox></object>"
            for name, x, y, w, h in BOXES[stem]
        )
        (xmls / f"{stem}.xml").write_text(
            f"<annotation><filename>{stem}.png</filename><size><width>{wide}</width>"
            f"<height>{high}</height></size>{objects}</annotation>"
        )


def yaml(root: Path, text: str, names: str = "names: [cat, dog]\nnc: 2") -> None:
    (root / "data.yaml").write_text(f"{text}\n{names}\n")


def yolo_pair(root: Path, train: str, val: str, text: str | None, **more) -> None:
    """Images and labels of both splits, where `{}` is images or labels."""
    yolo(root / train.format("images"), root / train.format("labels"), "abc", **more)
    yolo(root / val.format("images"), root / val.format("labels"), "d")
    if text is not None:
        yaml(root, text)
    else:
        (root / "classes.txt").write_text("cat\ndog\n")


def listed(root: Path) -> None:
    yolo_pair(root, "{}/train", "{}/val", "train: train.txt\nval: val.txt")
    (root / "train.txt").write_text("".join(f"./images/train/{s}.png\n" for s in "abc"))
    (root / "val.txt").write_text("images/val/d.png\n")


def voc_lists(root: Path, size: bool = True) -> None:
    voc(root / "JPEGImages", root / "Annotations", "abcd", size)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\nc\n")
    (lists / "val.txt").write_text("d\n")


def coco_pair(root: Path, train: str, val: str, images: str, val_images: str) -> None:
    coco(root / train, root / images, "abc")
    coco(root / val, root / val_images, "d")


PLACES = {
    "coco: json and images": ("train.json", "val.json", "images", "images"),
    "coco: json and images by split": ("train.json", "val.json", "images/train", "images/val"),
    "coco: json and root": ("train.json", "val.json", ".", "."),
    "coco: instances": ("instances_train.json", "instances_val.json", "train", "val"),
    "coco: 2017": (
        *("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        *("train2017", "val2017"),
    ),
    "coco: 2017 below images": (
        *("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        *("images/train2017", "images/val2017"),
    ),
    "coco: annotations": ("annotations/train.json", "annotations/val.json", "images", "images"),
    "coco: roboflow": (
        *("train/_annotations.coco.json", "valid/_annotations.coco.json", "train", "valid"),
    ),
    "coco: valid.json": ("train.json", "valid.json", "train", "valid"),
}
LAYOUTS: dict[str, Callable[[Path], None]] = {
    name: lambda root, places=places: coco_pair(root, *places) for name, places in PLACES.items()
}
PAIRS = {
    "yolo: data.yaml": ("{}/train", "{}/val", "train: images/train\nval: images/val"),
    "yolo: path": ("{}/train", "{}/val", "path: .\ntrain: images/train\nval: images/val"),
    "yolo: roboflow": (*("train/{}", "valid/{}", "train: ../train/images\nval: ../valid/images"),),
    "yolo: list of folders": ("{}/train", "{}/val", "train: [images/train]\nval: [images/val]"),
    "yolo: no yaml": ("{}/train", "{}/val", None),
    "yolo: no yaml, by split": ("train/{}", "val/{}", None),
    "yolo: valid": ("train/{}", "valid/{}", None),
}
LAYOUTS |= {name: lambda root, pair=pair: yolo_pair(root, *pair) for name, pair in PAIRS.items()}
LAYOUTS |= {
    "yolo: lists of files": listed,
    "yolo: missing label files": lambda root: yolo_pair(
        root, "{}/train", "{}/val", "train: images/train\nval: images/val", empty_files=False
    ),
    "voc: lists": voc_lists,
    "voc: no size": lambda root: voc_lists(root, False),
    "voc: devkit": lambda root: voc_lists(root / "VOCdevkit" / "VOC2012"),
    "voc: roboflow": lambda root: (
        voc(root / "train", root / "train", "abc"),
        voc(root / "valid", root / "valid", "d"),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_divided_layout_gives_the_same_boxes(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    train = open_split(tmp_path, "train", Choices(difficult="keep"))
    val = open_split(tmp_path, "val", Choices(difficult="keep"), train.classes)
    for split, stems in ((train, "abc"), (val, "d")):
        assert [f for f in split.findings if f.severity == "error"] == []
        assert [Path(path).stem for path in split.paths] == list(stems)
        assert split.classes == ("cat", "dog")
        assert split.sizes.tolist() == [list(SIZE[stem]) for stem in stems]
        expected = [box for stem in stems for _, *box in BOXES[stem]]
        assert split.boxes_xywh == pytest.approx(np.array(expected, dtype=float), abs=1e-6)
        names = [name for stem in stems for name, *_ in BOXES[stem]]
        assert [split.classes[label] for label in split.labels] == names


WHOLE: dict[str, Callable[[Path], None]] = {
    "coco: CVAT": lambda root: coco(
        root / "annotations" / "instances_default.json", root / "images", "abcd"
    ),
    "coco: CVAT default": lambda root: coco(
        root / "annotations" / "instances_default.json", root / "images" / "default", "abcd"
    ),
    "coco: Label Studio": lambda root: coco(
        root / "result.json", root / "images", "abcd", "images/"
    ),
    "coco: Label Studio on Windows": lambda root: coco(
        root / "result.json", root / "images", "abcd", "images\\"
    ),
    "coco: annotations.json": lambda root: coco(root / "annotations.json", root, "abcd"),
    "coco: any single JSON": lambda root: coco(root / "export.json", root / "images", "abcd"),
    "coco: roboflow undivided": lambda root: coco(root / "_annotations.coco.json", root, "abcd"),
    "yolo: undivided": lambda root: yolo(root / "images", root / "labels", "abcd"),
    "voc: undivided": lambda root: voc(root / "JPEGImages", root / "Annotations", "abcd"),
    "voc: beside images": lambda root: voc(root, root, "abcd"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_undivided_set_is_divided_by_name(name: str, tmp_path: Path) -> None:
    WHOLE[name](tmp_path)
    parts = [open_split(tmp_path, split, Choices(val_fraction=0.4)) for split in ("train", "val")]
    names = [sorted(Path(path).stem for path in part.paths) for part in parts]
    assert sorted(names[0] + names[1]) == list("abcd")
    assert names[0]
    assert names[1]
    assert set(find_readers(tmp_path)) == {"all"}


def test_the_division_stays_when_images_are_added_and_groups_stay_together(tmp_path: Path) -> None:
    stems = [f"v{n // 5}_{n:03d}" for n in range(60)]
    for stem in stems:
        SIZE[stem], BOXES[stem] = (8, 8), []

    def val(folder: str, names: list[str], **chosen) -> set[str]:
        coco(tmp_path / folder / "export.json", tmp_path / folder / "images", names)  # type: ignore[arg-type]
        return set(open_split(tmp_path / folder, "val", Choices(**chosen)).names)

    few, many = val("few", stems[:40]), val("many", stems)
    assert few <= many
    assert few == {name for name in many if int(name[-7:-4]) < 40}
    grouped = val("grouped", stems, group=r"^(v\d+)_")
    assert {name.split("_")[0] for name in grouped}
    assert len(grouped) == 5 * len({name.split("_")[0] for name in grouped})


def test_yolo_boxes_equal_those_of_supervision(tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}/train", "{}/val", "train: images/train\nval: images/val")
    theirs = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images/train"), str(tmp_path / "labels/train"), str(tmp_path / "data.yaml")
    )
    ours = open_split(tmp_path, "train")
    for image, path in enumerate(ours.paths):
        found = theirs.annotations[path]
        corners, labels = ours.targets(image)
        assert corners == pytest.approx(found.xyxy.reshape(-1, 4), abs=2e-5)
        assert labels.tolist() == (found.class_id.tolist() if len(found) else [])


def test_a_polygon_is_its_box_and_wrong_rows_are_found(tmp_path: Path) -> None:
    yolo_pair(tmp_path, "{}/train", "{}/val", "train: images/train\nval: images/val")
    labels = tmp_path / "labels" / "train"
    (labels / "a.txt").write_text(
        "1 0.1 0.2 0.5 0.2 0.5 0.6\n0 0.5 0.5\n7 0.5 0.5 0.1 0.1\n0 9 9 5 5"
    )
    (labels / "loose.txt").write_text("0 0.5 0.5 0.1 0.1")
    found = open_split(tmp_path, "train")
    assert found.boxes_xywh[0] == pytest.approx([4, 6, 16, 12])
    assert {finding.code for finding in found.findings} == {
        *("label-row", "label-class", "label-not-normalised", "label-without-image"),
    }


def test_difficult_objects_are_ignored_or_kept(tmp_path: Path) -> None:
    voc_lists(tmp_path)
    assert open_split(tmp_path, "train").crowd.tolist() == [False, True, False]
    assert not open_split(tmp_path, "train", Choices(difficult="keep")).crowd.any()
    shifted = open_split(tmp_path, "train", Choices(voc_origin=0))
    assert shifted.boxes_xywh[0].tolist() == [3, 4, 20, 15]


def test_classes_may_be_chosen_or_merged(tmp_path: Path) -> None:
    LAYOUTS["coco: json and images"](tmp_path)
    dogs = open_split(tmp_path, "train", Choices(classes=("dog",)))
    assert (dogs.classes, len(dogs.image_ids), dogs.labels.tolist()) == (("dog",), 3, [0])
    val = open_split(tmp_path, "val", Choices(classes=("dog",)), dogs.classes)
    assert val.labels.tolist() == [0]
    one = open_split(tmp_path, "train", Choices(single_class=True))
    assert (len(one.classes), one.labels.tolist()) == (1, [0, 0, 0])


def test_another_folder_may_be_validated_on(tmp_path: Path) -> None:
    WHOLE["coco: any single JSON"](tmp_path / "x")
    LAYOUTS["yolo: data.yaml"](tmp_path / "y")
    chosen = Choices(val_data=str(tmp_path / "y"))
    train = open_split(tmp_path / "x", "train", chosen)
    assert len(train.image_ids) == 4
    assert [
        Path(p).stem for p in open_split(tmp_path / "x", "val", chosen, train.classes).paths
    ] == ["d"]
