"""A folder opens as people have it: COCO, YOLO and Pascal VOC, divided or not."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import supervision
from PIL import Image

from od_detr.data.folders import choices_of, find_readers, open_split
from od_detr.data.formats.choices import Choices
from od_detr.errors import InputError
from od_detr.options import DataOptions
from od_detr.options.reading import from_values
from od_detr.run_files import RunFiles
from od_detr.training.record.output import check_output

SIZE = {"a": (30, 40), "b": (48, 32), "c": (20, 20), "d": (24, 36)}
BOXES = {"a": [("cat", 2, 3, 20, 15)], "b": [("dog", 1, 1, 9, 40), ("cat", 10, 20, 16, 8)], "c": []}
BOXES["d"] = [("dog", 4, 4, 30, 16)]
NAMES = ["cat", "dog"]


def image(folder: Path, stem: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[stem][::-1], (90, 90, 90)).save(folder / f"{stem}.png")
    return folder / f"{stem}.png"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


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


def yolo(images: Path, labels: Path, stems: Sequence[str], empty_files: bool = True) -> None:
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


def voc(images: Path, xmls: Path, stems: Sequence[str], size: bool = True) -> None:
    xmls.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        image(images, stem)
        high, wide = SIZE[stem] if size else (0, 0)
        objects = "".join(
            f"<object><name>{name}</name><difficult>{int(name == 'dog')}</difficult><bndbox>"
            f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
            f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
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


def upper_case(root: Path, suffixes: tuple[str, ...]) -> None:
    """Gives files with these suffixes upper-case ones, as cameras and Windows do."""
    for path in [*root.rglob("*")]:
        if path.suffix in suffixes:
            path.rename(path.with_suffix(path.suffix.upper()))


def as_macos_packs(root: Path) -> None:
    """Adds the files that macOS puts into an archive beside each file."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        write(path.with_name(f"._{path.name}"), "\0\5\x16\7")
        write(root / "__MACOSX" / path.relative_to(root), "\0\5\x16\7")
        write(path.with_name(".DS_Store"), "")


def changed(name: str, *changes: Callable[[Path], object]) -> Callable[[Path], None]:
    """A layout, and something done to it afterwards."""

    def made(root: Path) -> None:
        LAYOUTS[name](root)
        for change in changes:
            change(root)

    return made


def cvat_coco(root: Path) -> None:
    coco(root / "annotations" / "instances_Train.json", root / "images" / "Train", "abc")
    coco(root / "annotations" / "instances_Validation.json", root / "images" / "Validation", "d")


def fiftyone(root: Path) -> None:
    for split, stems in (("train", "abc"), ("validation", "d")):
        coco(root / split / "labels.json", root / split / "data", stems)


def darknet(root: Path) -> None:
    """Images and label files in one folder, with lists of paths from where training is started."""
    yolo(root / "obj", root / "obj", "abcd")
    write(root / "obj.names", "cat\ndog\n")
    write(
        root / "obj.data",
        "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
        "backup = backup/\n",
    )
    write(root / "train.txt", "".join(f"data/obj/{stem}.png\n" for stem in "abc"))
    write(root / "valid.txt", "data/obj/d.png\n")


def cvat_darknet(root: Path) -> None:
    """CVAT's YOLO 1.1 with subsets."""
    yolo(root / "obj_train_data", root / "obj_train_data", "abc")
    yolo(root / "obj_valid_data", root / "obj_valid_data", "d")
    write(root / "obj.names", "cat\ndog\n")
    write(
        root / "obj.data",
        "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n",
    )
    write(root / "train.txt", "".join(f"data/obj_train_data/{stem}.png\n" for stem in "abc"))
    write(root / "valid.txt", "data/obj_valid_data/d.png\n")


def cvat_ultralytics(root: Path) -> None:
    """CVAT's Ultralytics YOLO: lists of paths that begin with `data`."""
    yolo_pair(root, "{}/train", "{}/validation", "path: .\ntrain: train.txt\nval: val.txt")
    write(root / "train.txt", "".join(f"data/images/train/{stem}.png\n" for stem in "abc"))
    write(root / "val.txt", "data/images/validation/d.png\n")


def coco8(root: Path) -> None:
    yolo_pair(root, "{}/train", "{}/val", None)
    (root / "classes.txt").unlink()
    text = "path: coco8\ntrain: images/train\nval: images/val\ntest:\n"
    write(root / "coco8.yaml", f"{text}names:\n  0: cat\n  1: dog\ndownload: https://x.org/y.zip\n")
    write(root / "README.md", "# COCO8")
    write(root / "LICENSE", "AGPL")


def roboflow_darknet(root: Path) -> None:
    for split, stems in (("train", "abc"), ("valid", "d")):
        yolo(root / split, root / split, stems)
        write(root / split / "_darknet.labels", "cat\ndog\n")


def labelimg_xml(images: Path, xmls: Path, stems: str) -> None:
    """LabelImg writes the path of its own computer."""
    voc(images, xmls, stems)
    for stem in stems:
        file = xmls / f"{stem}.xml"
        path = f"<folder>img</folder><path>C:\\Users\\Jörg\\img\\{stem}.png</path></annotation>"
        file.write_text(file.read_text().replace("</annotation>", path))


def cvat_voc(root: Path) -> None:
    """CVAT's Pascal VOC with images in folders."""
    voc(root / "JPEGImages" / "street", root / "Annotations" / "street", "abcd")
    for xml in (root / "Annotations" / "street").iterdir():
        text = xml.read_text()
        xml.write_text(text.replace("<filename>", "<folder>street</folder><filename>street/"))
    write(root / "ImageSets" / "Main" / "train.txt", "street/a\nstreet/b\nstreet/c\n")
    write(root / "ImageSets" / "Main" / "val.txt", "street/d\n")
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\ncat:::\ndog:::\n")


LAYOUTS |= {
    "coco: CVAT subsets": cvat_coco,
    "coco: FiftyOne": fiftyone,
    "coco: folders in upper case": lambda root: coco_pair(
        root,
        *("Annotations/instances_train.json", "Annotations/instances_val.json"),
        *("images/train", "images/val"),
    ),
    "coco: images in upper case": lambda root: coco_pair(
        root, "train.json", "Val.json", "Images/Train", "Images/Val"
    ),
    "coco: folders of splits in upper case": lambda root: coco_pair(
        root, "Train/labels.json", "Valid/labels.json", "Train/Data", "Valid/Images"
    ),
    "coco: a JSON in each folder": lambda root: coco_pair(
        root, "train/annotations.json", "val/annotations.json", "train/images", "val/images"
    ),
    "coco: testing beside": changed(
        "coco: annotations", lambda root: coco(root / "annotations/test.json", root / "images", "d")
    ),
    "coco: macOS archive": changed("coco: roboflow", as_macos_packs),
    "yolo: coco8": coco8,
    "yolo: darknet": darknet,
    "yolo: darknet from CVAT": cvat_darknet,
    "yolo: darknet from Roboflow": roboflow_darknet,
    "yolo: CVAT for ultralytics": cvat_ultralytics,
    "yolo: paths of another computer": lambda root: yolo_pair(
        root,
        *("{}/train", "{}/val"),
        "train: /content/datasets/pets-3/images/train\nval: /content/datasets/pets-3/images/val",
    ),
    "yolo: Windows paths": lambda root: yolo_pair(
        root,
        *("{}/train", "{}/val"),
        "path: C:\\Users\\Jörg\\pets\ntrain: images\\train\nval: images\\val",
    ),
    "yolo: Windows lists": changed(
        "yolo: lists of files",
        lambda root: write(root / "val.txt", "C:\\data\\images\\val\\d.png\n"),
    ),
    "yolo: nested": lambda root: yolo_pair(
        root, "{}/train/deep/er", "{}/val/x", "train: images/train\nval: images/val"
    ),
    "yolo: umlauts and blanks": lambda root: yolo_pair(
        root, "{}/Übung 1", "{}/Prüfung", "train: images/Übung 1\nval: images/Prüfung"
    ),
    "yolo: upper case": changed("yolo: data.yaml", lambda root: upper_case(root, (".png", ".txt"))),
    "yolo: macOS archive": changed("yolo: roboflow", as_macos_packs),
    "yolo: a folder around it": lambda root: LAYOUTS["yolo: roboflow"](root / "pets.v3i.yolov8"),
    "voc: upper case": changed("voc: lists", lambda root: upper_case(root, (".png", ".xml"))),
    "voc: macOS archive": changed("voc: roboflow", as_macos_packs),
    "voc: CVAT": cvat_voc,
    "voc: a folder for each split": lambda root: (
        voc(root / "train" / "images", root / "train" / "annotations", "abc"),
        voc(root / "val" / "images", root / "val" / "annotations", "d"),
    ),
}


@pytest.mark.slow
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
    "coco: CVAT in upper case": lambda root: coco(
        root / "Annotations" / "Instances_Default.json", root / "Images", "abcd"
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
    "yolo: undivided, in folders": lambda root: (
        yolo(root / "images" / "x", root / "labels" / "x", "ab"),
        yolo(root / "images" / "y" / "z", root / "labels" / "y" / "z", "cd"),
    ),
    "voc: undivided": lambda root: voc(root / "JPEGImages", root / "Annotations", "abcd"),
    "voc: beside images": lambda root: voc(root, root, "abcd"),
    "coco: FiftyOne": lambda root: coco(root / "labels.json", root / "data", "abcd"),
    "yolo: Label Studio": lambda root: (
        yolo(root / "images", root / "labels", "abcd"),
        write(root / "classes.txt", "cat\ndog\n"),
        write(root / "notes.json", '{"categories": [{"id": 0, "name": "cat"}], "info": {}}'),
    ),
    "yolo: LabelImg": lambda root: (
        yolo(root, root, "abcd"),
        write(root / "classes.txt", "cat\ndog\n"),
    ),
    "voc: LabelImg": lambda root: labelimg_xml(root, root, "abcd"),
    "voc: Kaggle": lambda root: voc(root / "images", root / "annotations", "abcd"),
}
# A set with nothing but a training split is divided like one without splits.
ONLY_TRAIN: dict[str, Callable[[Path], object]] = {
    "coco": lambda root: coco(root / "train.json", root / "images", "abcd"),
    "coco: roboflow": lambda root: coco(
        root / "train" / "_annotations.coco.json", root / "train", "abcd"
    ),
    "yolo: roboflow": lambda root: (
        yolo(root / "train" / "images", root / "train" / "labels", "abcd"),
        yaml(root, "train: ../train/images"),
    ),
    "voc: roboflow": lambda root: voc(root / "train", root / "train", "abcd"),
}


@pytest.mark.parametrize("name", ONLY_TRAIN)
def test_a_training_split_alone_is_divided_and_says_so(name: str, tmp_path: Path) -> None:
    ONLY_TRAIN[name](tmp_path)
    parts = [open_split(tmp_path, split, Choices(val_fraction=0.4)) for split in ("train", "val")]
    assert sorted(Path(path).stem for part in parts for path in part.paths) == list("abcd")
    assert all("divided" in [finding.code for finding in part.findings] for part in parts)
    other = Choices(val_data=str(tmp_path))
    assert len(open_split(tmp_path, "train", other).image_ids) == 4


def test_at_least_40_layouts_are_known() -> None:
    assert len(LAYOUTS) + len(WHOLE) + len(ONLY_TRAIN) >= 40


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda root: write(root / "readme.txt", ""), "no annotations found"),
    "images alone": (lambda root: image(root / "images", "a"), "no annotations found"),
    "a missing folder": (
        lambda root: yolo_pair(root, "{}/train", "{}/val", "train: images/trian\nval: images/val"),
        r"data\.yaml: train: 'images/trian' is not there",
    ),
    "names missing": (
        lambda root: (
            yolo_pair(root, "{}/train", "{}/val", None),
            yaml(root, "train: images/train", "names: [cat]\nnc: 3"),
        ),
        r"data\.yaml: nc is .*names",
    ),
    "other JSON": (lambda root: write(root / "package.json", '{"name": "x"}'), "no annotations"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_opened_says_what_is_missing(name: str, tmp_path: Path) -> None:
    make, words = UNUSABLE[name]
    make(tmp_path)
    with pytest.raises(InputError, match=words) as error:
        open_split(tmp_path, "train")
    assert len(str(error.value).splitlines()) == 1


def test_names_are_found_in_other_spellings(tmp_path: Path) -> None:
    """An archive made by macOS spells ü as u and ¨; Label Studio quotes blanks."""
    coco(tmp_path / "train.json", tmp_path / "images", "ab")
    text = (tmp_path / "train.json").read_text()
    for old, name, found in (
        *(("a", "Tür.png", unicodedata.normalize("NFD", "Tür.png")),),
        *(("b", "two%20dogs.png", "two dogs.png"),),
    ):
        (tmp_path / "images" / f"{old}.png").rename(tmp_path / "images" / found)
        text = text.replace(f"{old}.png", name)
    (tmp_path / "train.json").write_text(text)
    chosen = Choices(val_data=str(tmp_path))
    assert [f.problem for f in open_split(tmp_path, "train", chosen).findings] == []


def test_labels_of_no_image_make_no_data_set(tmp_path: Path) -> None:
    yolo(tmp_path / "images", tmp_path / "labels" / "train", "ab")
    with pytest.raises(InputError, match="no annotations found"):
        open_split(tmp_path, "train")


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
        data = tmp_path / folder
        coco(data / "export.json", data / "images", names)  # type: ignore[arg-type]
        return set(open_split(data, "val", Choices(**chosen)).names)

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
    assert shifted.boxes_xywh[0].tolist() == [3, 4, 19, 14]


def test_classes_may_be_chosen_or_merged(tmp_path: Path) -> None:
    LAYOUTS["coco: json and images"](tmp_path)
    dogs = open_split(tmp_path, "train", Choices(classes=("dog",)))
    assert (dogs.classes, len(dogs.image_ids), dogs.labels.tolist()) == (("dog",), 3, [0])
    val = open_split(tmp_path, "val", Choices(classes=("dog",)), dogs.classes)
    assert val.labels.tolist() == [0]
    one = open_split(tmp_path, "train", Choices(single_class=True))
    assert (len(one.classes), one.labels.tolist()) == (1, [0, 0, 0])


@pytest.mark.parametrize("given", [["dog", "cat"], "dog, cat", "[dog, cat]", ("dog", "cat ")])
def test_classes_are_given_as_a_list_or_as_one_text(given: object) -> None:
    chosen = from_values(DataOptions, {"data": "x", "classes": given})
    assert choices_of(chosen).classes == ("dog", "cat")


def test_another_folder_may_be_validated_on(tmp_path: Path) -> None:
    WHOLE["coco: any single JSON"](tmp_path / "x")
    LAYOUTS["yolo: data.yaml"](tmp_path / "y")
    chosen = Choices(val_data=str(tmp_path / "y"))
    train = open_split(tmp_path / "x", "train", chosen)
    assert len(train.image_ids) == 4
    assert [
        Path(p).stem for p in open_split(tmp_path / "x", "val", chosen, train.classes).paths
    ] == ["d"]


def test_a_test_split_that_is_only_named_is_none(tmp_path: Path) -> None:
    LAYOUTS["yolo: data.yaml"](tmp_path)
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("test: ../missing/pictures\n")
    assert find_readers(tmp_path).keys() == {"train", "val"}
    with pytest.raises(InputError, match="no test split, only train and val"):
        open_split(tmp_path, "test")


def test_the_yaml_file_of_a_data_set_stands_for_its_folder(tmp_path: Path) -> None:
    LAYOUTS["yolo: data.yaml"](tmp_path)
    (tmp_path / "other.yml").write_text("train: images/val\nval: images/val\nnames: [cat, dog]\n")
    chosen = open_split(tmp_path / "data.yaml", "train")
    assert list(chosen.paths) == list(open_split(tmp_path, "train").paths)
    other = open_split(tmp_path / "other.yml", "train")
    assert list(other.paths) == list(open_split(tmp_path, "val").paths)
    with pytest.raises(InputError, match="is the folder of --data"):
        check_output(RunFiles(tmp_path), tmp_path / "data.yaml")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("epochs: 3\n", r"needs names .* and at least one of train, val and test; correct it"),
        ("names: [cat]\ntrain:\n", r"needs names .* and at least one of train, val and test"),
        ("names: [cat\n", r"cannot be read \(.*\); correct the YAML"),
    ],
)
def test_a_yaml_file_that_describes_no_data_set_is_one_line(
    tmp_path: Path, text: str, pattern: str
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"run\.yaml: {pattern}"):
        find_readers(tmp_path / "run.yaml")
