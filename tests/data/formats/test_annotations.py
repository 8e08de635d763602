"""What is wrong with a COCO file is said before training, in one line that a user can act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from od_detr.data.dataset import CocoDataset
from od_detr.data.findings import SHOWN_OF_A_KIND, error, limited, raise_errors
from od_detr.data.folders import open_split
from od_detr.data.formats.coco import read_coco
from od_detr.errors import InputError


def box(**changes) -> Callable[[dict], None]:
    return lambda document: document["annotations"][0].update(changes)


def image(**changes) -> Callable[[dict], None]:
    return lambda document: document["images"][0].update(changes)


def drop(key: str, field: str) -> Callable[[dict], None]:
    return lambda document: document[key][0].pop(field)


def again(key: str) -> Callable[[dict], None]:
    return lambda document: document[key].append(dict(document[key][0]))


def whole(**changes) -> Callable[[dict], None]:
    return lambda document: document.update(changes)


# What is done to a sound file, and what the message must name besides the file.
HOSTILE = {
    "category not declared": (box(category_id=8), ["annotation 5", "category_id", "8"]),
    "category as text": (box(category_id="7"), ["annotation 5", "category_id"]),
    "negative category": (box(category_id=-1), ["annotation 5", "category_id", "-1"]),
    "image unknown": (box(image_id=99), ["annotation 5", "image_id", "99"]),
    "NaN in a box": (box(bbox=[float("nan"), 0, 1, 1]), ["annotation 5", "bbox", "nan"]),
    "infinite box": (box(bbox=[0, 0, float("inf"), 1]), ["annotation 5", "bbox", "inf"]),
    "integer beyond floats": (box(bbox=[0, 0, 10**400, 1]), ["annotation 5", "bbox"]),
    "corners instead of sizes": (box(bbox=[20, 20, -5, 10]), ["annotation 5", "bbox", "negative"]),
    "three numbers": (box(bbox=[1, 2, 3]), ["annotation 5", "bbox"]),
    "no numbers": (box(bbox=["1", "2", "3", "4"]), ["annotation 5", "bbox"]),
    "truth values": (box(bbox=[True, 0, 1, 1]), ["annotation 5", "bbox"]),
    "null box": (box(bbox=None), ["annotation 5", "bbox"]),
    "crowd as text": (box(iscrowd="0"), ["annotation 5", "iscrowd"]),
    "box missing": (drop("annotations", "bbox"), ["annotation 5", "bbox", "missing"]),
    "category missing": (
        drop("annotations", "category_id"),
        ["annotation 5", "category_id", "missing"],
    ),
    "image twice": (again("images"), ["image number 3", "id 30", "twice"]),
    "name of a category twice": (
        lambda document: document["categories"].append({"id": 8, "name": "cat"}),
        ["category 8", "name 'cat'", "category 7"],
    ),
    "category twice": (again("categories"), ["category number 2", "id 90", "twice"]),
    "image id as text": (image(id="30"), ["image number 0", "id"]),
    "image id a fraction": (image(id=1.5), ["image number 0", "id", "1.5"]),
    "image id beyond 64 bits": (image(id=2**70), ["image number 0", "id"]),
    "width missing": (drop("images", "width"), ["image 30", "width", "missing"]),
    "height zero": (image(height=0), ["image 30", "height"]),
    "file missing": (image(file_name="no\nsuch.png"), ["image 30", "file_name", r"no\nsuch.png"]),
    "file name missing": (drop("images", "file_name"), ["image 30", "file_name", "missing"]),
    "file name null": (image(file_name=None), ["image 30", "file_name"]),
    "a folder for a file": (image(file_name="."), ["image 30", "file_name"]),
    "absolute path": (image(file_name="/etc/passwd"), ["image 30", "file_name", "/etc/passwd"]),
    "drive letter": (image(file_name="C:\\a.png"), ["image 30", "file_name"]),
    "climbing path": (image(file_name="x/../../a.png"), ["image 30", "file_name"]),
    "climbing path of Windows": (image(file_name="..\\a.png"), ["image 30", "file_name"]),
    "NUL in a path": (image(file_name="a\0.png"), ["image 30", "file_name"]),
    "lone surrogate in a path": (image(file_name="\ud800"), ["image 30", "file_name"]),
    "name of a category missing": (drop("categories", "name"), ["category 90", "name", "missing"]),
    "no images": (whole(images=[]), ["images", "empty"]),
    "no categories": (whole(categories=[]), ["categories", "empty"]),
    "images no list": (whole(images={"a": 1}), ["images", "list"]),
    "images null": (whole(images=None), ["images", "list"]),
    "image no object": (whole(images=[3]), ["image number 0", "object"]),
    "annotations missing": (
        lambda document: document.pop("annotations"),
        ["annotations", "missing"],
    ),
    "categories missing": (lambda document: document.pop("categories"), ["categories", "missing"]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_faulty_entry_is_one_line_with_file_id_and_field(case: str, sound: dict, write) -> None:
    spoil, named = HOSTILE[case]
    spoil(sound)
    with pytest.raises(InputError) as error:
        CocoDataset.from_folder(write(sound), "train")
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert "; " in message, "the mend is missing"
    for name in ["train.json", *named]:
        assert name in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", ["empty"]),
        (" \n ", ["empty"]),
        ('{"images": [\n{"id": 1,]}', ["line 2 column"]),
        ('{"images": [', ["line 1 column"]),
        ("[1, 2]", ["list"]),
        ("3", ["int"]),
        ("[" * 100_000, ["JSON"]),
        ('{"images": [{"id": ' + "9" * 5000 + "}]}", ["JSON"]),
    ],
)
def test_a_file_that_is_no_coco_json_is_one_line_with_the_place(
    text: str, named: list[str], write
) -> None:
    with pytest.raises(InputError) as error:
        CocoDataset.from_folder(write(text), "train")
    assert len(str(error.value).splitlines()) == 1
    for name in ["train.json", *named]:
        assert name in str(error.value)


def test_a_file_in_another_encoding_is_said_so(sound: dict, write) -> None:
    folder = write(sound)
    (folder / "train.json").write_bytes(json.dumps(sound).encode("utf-16"))
    with pytest.raises(InputError, match="UTF-8"):
        CocoDataset.from_folder(folder, "train")


def test_a_byte_order_mark_does_no_harm(sound: dict, write) -> None:
    folder = write(sound)
    (folder / "train.json").write_text(json.dumps(sound), encoding="utf-8-sig")
    assert len(CocoDataset.from_folder(folder, "train")) == 3


def test_a_missing_annotation_file_or_image_folder_is_said_so(sound: dict, write) -> None:
    folder = write(sound)
    with pytest.raises(InputError, match=r"nothing\.json"):
        read_coco(folder / "nothing.json")
    with pytest.raises(InputError, match="images"):
        read_coco(folder / "images")


def test_labels_follow_the_category_ids_and_lead_back(sound: dict, write) -> None:
    dataset = CocoDataset.from_folder(write(sound), "train")
    assert dataset.category_ids == (7, 90)
    assert dataset.classes == ("cat", "zebra")
    seen = {
        (s.image_id, dataset.category_ids[label])
        for s in map(dataset.__getitem__, range(3))
        for label in s.labels
    }
    assert seen == {(a["image_id"], a["category_id"]) for a in sound["annotations"]}


def test_crowds_and_boxes_without_area_are_dropped_and_counted(sound: dict, write) -> None:
    sound["annotations"] += [
        {"id": 11, "image_id": 20, "category_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        {"id": 12, "image_id": 20, "category_id": 7, "bbox": [3, 3, 0, 5]},
        {"id": 13, "image_id": 20, "category_id": 7, "bbox": [25, 3, 5, 5]},
        {"id": 14, "image_id": 20, "category_id": 7, "bbox": [10, 10, 1e30, 5]},
        {"id": 15, "image_id": 20, "category_id": 7, "bbox": [-4, 2, 8, 5]},
        {"id": 16, "image_id": 20, "category_id": 7, "bbox": [10, 2, 10.01, 5]},
    ]
    dataset = CocoDataset.from_folder(write(sound), "train")
    assert (dataset.dropped.crowd, dataset.dropped.degenerate, dataset.dropped.clipped) == (1, 2, 2)
    assert len(str(dataset.dropped).splitlines()) == 1
    assert (dataset[2].boxes * 20).tolist() == [
        pytest.approx([15, 12.5, 10, 5]),
        pytest.approx([2, 4.5, 4, 5]),
        pytest.approx([15, 4.5, 10, 5]),
    ]


def test_a_file_without_boxes_is_read(sound: dict, write) -> None:
    sound["annotations"] = []
    dataset = CocoDataset.from_folder(write(sound), "train")
    assert dataset.most_targets == 0
    assert dataset[1].boxes.shape == (0, 4)


def test_another_split_keeps_the_labels_it_is_given(sound: dict, write) -> None:
    """A rare class is often missing from a small split."""
    sound["categories"].pop(1)
    sound["annotations"] = sound["annotations"][:1]
    dataset = CocoDataset.from_folder(write(sound), "train", classes=("cat", "zebra"))
    assert dataset.classes == ("cat", "zebra")
    assert dataset.category_ids == (-1, 90)
    assert dataset[1].labels.tolist() == [1]


def test_given_classes_are_matched_by_name(sound: dict, write) -> None:
    sound["categories"].append({"id": 8, "name": "unused"})
    dataset = CocoDataset.from_folder(write(sound), "train", classes=("zebra", "cat"))
    assert dataset.category_ids == (90, 7)
    assert dataset[1].labels.tolist() == [0, 1]


def test_boxes_of_a_class_that_is_not_given_are_refused(sound: dict, write) -> None:
    folder = write(sound)
    with pytest.raises(InputError, match=r"train\.json: category 7: name 'cat' has 2 boxes.*zebra"):
        CocoDataset.from_folder(folder, "train", classes=("dog", "zebra"))


def test_names_that_repeat_are_refused_whoever_gives_the_classes(sound: dict, write) -> None:
    """Otherwise training would use one of the two, and validation would fail on the other."""
    sound["categories"].append({"id": 8, "name": "cat"})
    folder = write(sound)
    for classes in (None, ("cat", "zebra")):
        with pytest.raises(InputError, match="category 8: name 'cat' is that of category 7 too"):
            CocoDataset.from_folder(folder, "train", classes=classes)


@pytest.mark.parametrize("root", ["animals", "cat"])
def test_an_unused_category_that_others_have_as_supercategory_is_no_class(
    root: str, sound: dict, write
) -> None:
    """Roboflow exports begin with one, and it may even have the name of a class."""
    for category in sound["categories"]:
        category["supercategory"] = root
    sound["categories"].insert(0, {"id": 0, "name": root, "supercategory": "none"})
    dataset = CocoDataset.from_folder(write(sound), "train")
    assert dataset.category_ids == (7, 90)
    assert dataset.classes == ("cat", "zebra")
    assert [finding.code for finding in dataset.annotations.findings] == ["root-category"]


def test_a_supercategory_with_boxes_is_a_class(sound: dict, write) -> None:
    sound["categories"][1]["supercategory"] = "zebra"
    assert CocoDataset.from_folder(write(sound), "train").classes == ("cat", "zebra")


def test_annotation_ids_may_repeat_or_be_absent(sound: dict, write) -> None:
    sound["annotations"][1]["id"] = 5
    del sound["annotations"][2]["id"]
    dataset = CocoDataset.from_folder(write(sound), "train")
    assert len(dataset.annotations.labels) == 3
    del sound["annotations"][2]["bbox"]
    with pytest.raises(InputError, match="annotation number 2: 'bbox' is missing"):
        CocoDataset.from_folder(write(sound), "train")


def test_all_faults_are_collected_and_the_first_is_raised_with_their_number(
    sound: dict, write
) -> None:
    sound["annotations"][0]["category_id"] = 8
    sound["annotations"][2]["bbox"] = [1, 2, -3, 4]
    sound["images"][0]["file_name"] = "gone.png"
    folder = write(sound)
    found = open_split(folder, "train").findings
    assert {finding.code for finding in found if finding.severity == "error"} == {
        "annotation-category_id",
        "annotation-bbox",
        "image-file",
    }
    with pytest.raises(InputError, match=r"and 2 more"):
        CocoDataset.from_folder(folder, "train")


def test_findings_that_are_limited_again_keep_their_count() -> None:
    findings = [error("xml", "data", f"record {n}", "cannot be read", "") for n in range(30)]
    again = limited([*limited(findings, 10), *findings], 10)
    assert len(again) == 10
    assert sum(each.count for each in again) == 60


def test_a_set_without_its_images_says_so_once_and_in_few_lines(tmp_path: Path) -> None:
    """Training and validation are parts of one file here, so that both have its findings."""
    names = [f"{number:03}.png" for number in range(40)]
    images = [
        {"id": number, "file_name": name, "width": 8, "height": 8}
        for number, name in enumerate(names)
    ]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    findings = [
        finding for split in ("train", "val") for finding in open_split(tmp_path, split).findings
    ]
    with pytest.raises(InputError, match=r"none of 40 is found \(and 39 more") as caught:
        raise_errors(findings)
    assert len(caught.value.details) == 1 + SHOWN_OF_A_KIND
    assert "and 30 more like it" in caught.value.details[-1]


def test_a_key_that_stands_twice_is_an_error(sound: dict, write) -> None:
    text = json.dumps(sound).replace('"category_id": 90', '"category_id": 90, "category_id": 7')
    with pytest.raises(InputError, match=r"object 5: key 'category_id' is there twice"):
        CocoDataset.from_folder(write(text), "train")


@pytest.mark.parametrize("area", [float("nan"), -4, "12", True])
def test_an_area_that_is_no_number_is_counted_and_replaced_by_the_box(
    area: object, sound: dict, write
) -> None:
    sound["annotations"][0]["area"] = area
    dataset = CocoDataset.from_folder(write(sound), "train")
    assert dataset.annotations.area.tolist() == [1200, 200, 32]
    (finding,) = dataset.annotations.findings
    assert (finding.severity, finding.record) == ("warning", "annotation 5")


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        (lambda x, y, w, h: [x / 60, y / 60, w / 60, h / 60], "box-normalised"),
        (lambda x, y, w, h: [x, y, x + w, y + h], "box-corners"),
        (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], "box-centres"),
    ],
)
def test_boxes_in_another_unit_are_refused(unit, code: str, sound: dict, write) -> None:
    boxes = [[10, 5, 30, 20], [1, 1, 38, 28], [20, 15, 20, 15], [5, 20, 34, 10], [12, 3, 28, 26]]
    template = sound["annotations"][1]
    sound["annotations"] = [template | {"id": n, "bbox": box} for n, box in enumerate(boxes)]
    folder = write(sound)
    CocoDataset.from_folder(folder, "train")
    for entry in sound["annotations"]:
        entry["bbox"] = unit(*entry["bbox"])
    write(sound)
    assert [f.code for f in open_split(folder, "train").findings] == [code]
    with pytest.raises(InputError, match=r"train\.json: annotation 0: bbox of 5 of 5 boxes"):
        CocoDataset.from_folder(folder, "train")


def test_a_file_that_is_listed_twice_is_counted(sound: dict, write) -> None:
    sound["images"][0] = sound["images"][1] | {"id": 30}
    dataset = CocoDataset.from_folder(write(sound), "train")
    assert ("image-listed-twice", "image 10") in [
        (found.code, found.record) for found in dataset.annotations.findings
    ]


def test_a_link_that_leads_out_of_the_data_set_is_counted(
    sound: dict, write, tmp_path_factory
) -> None:
    folder = write(sound)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.png"
    (folder / "images" / "a.png").rename(elsewhere)
    (folder / "images" / "a.png").symlink_to(elsewhere)
    (folder / "images" / "b.jpg").rename(folder / "b.jpg")
    (folder / "images" / "b.jpg").symlink_to(folder / "b.jpg")
    found = CocoDataset.from_folder(folder, "train").annotations.findings
    assert [(f.code, f.record, f.count) for f in found] == [("image-link", "image 30", 1)]
