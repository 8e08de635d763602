"""What is wrong with a COCO file is said before training, in one line that a user can act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from od_detr.data.dataset import CocoDataset
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
    "annotation id missing": (drop("annotations", "id"), ["annotation number 0", "id", "missing"]),
    "annotation twice": (again("annotations"), ["annotation number 3", "id 5", "twice"]),
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


def test_a_missing_annotation_file_or_image_folder_is_said_so(
    sound: dict, write, tmp_path: Path
) -> None:
    folder = write(sound)
    with pytest.raises(InputError, match=r"nothing\.json"):
        CocoDataset(folder / "nothing.json", folder / "images")
    with pytest.raises(InputError, match="nowhere"):
        CocoDataset(folder / "train.json", tmp_path / "nowhere")
    with pytest.raises(InputError, match="images"):
        CocoDataset(folder / "images", folder / "images")


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
    sound["categories"].pop(1)
    sound["annotations"] = sound["annotations"][:1]
    given = {"classes": ("cat", "zebra"), "category_ids": (7, 90)}
    dataset = CocoDataset.from_folder(write(sound), "train", **given)
    assert dataset.classes == given["classes"]
    assert dataset[1].labels.tolist() == [1]


def test_classes_alone_are_matched_by_name(sound: dict, write) -> None:
    folder = write(sound)
    dataset = CocoDataset.from_folder(folder, "train", classes=("zebra", "cat"))
    assert dataset.category_ids == (90, 7)
    with pytest.raises(InputError, match=r"train\.json.*'dog'"):
        CocoDataset.from_folder(folder, "train", classes=("zebra", "dog"))


def test_names_that_repeat_are_refused_whoever_gives_the_classes(sound: dict, write) -> None:
    """Otherwise training would take one of the two for the class, and validation stumble over the other's boxes."""
    sound["categories"].append({"id": 8, "name": "cat"})
    folder = write(sound)
    for given in (
        {},
        {"classes": ("cat", "zebra")},
        {"classes": ("cat", "zebra", "cat"), "category_ids": (7, 90, 8)},
    ):
        with pytest.raises(
            InputError, match=r"category 8: name 'cat' is that of category 7 too; give each"
        ):
            CocoDataset.from_folder(folder, "train", **given)


def test_a_split_of_other_classes_is_refused(sound: dict, write) -> None:
    folder = write(sound)
    with pytest.raises(InputError, match=r"train\.json: category 7: name is 'cat' here but 'dog'"):
        CocoDataset.from_folder(folder, "train", classes=("dog", "zebra"), category_ids=(7, 90))
    with pytest.raises(InputError, match=r"train\.json: annotation 5: category_id 90"):
        CocoDataset.from_folder(folder, "train", classes=("cat",), category_ids=(7,))
