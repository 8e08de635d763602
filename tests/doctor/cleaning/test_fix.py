"""What `--fix` writes: a data set that trains, without touching the one that it was made from."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.doctor.conftest import HEIGHT, WIDTH, Plants
from tests.doctor.faults import FAULTS

from od_detr.data.folders import open_split
from od_detr.data.headers.header import Header
from od_detr.doctor.cleaning.fix import QUARANTINE, cleaned, write_cleaned
from od_detr.doctor.cleaning.repair import turned
from od_detr.doctor.diagnosis import Examination, diagnosed
from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.training.fit import fit

Fingerprint = Callable[[Path], dict[str, str]]
Make = Callable[..., Plants]


def fixed(data: Path) -> Path:
    """Cleans a data set into a folder beside it."""
    output = data.parent / "fixed"
    write_cleaned(cleaned(diagnosed(data, Examination())), output)
    return output


def document(folder: Path, split: str) -> dict:
    return json.loads((folder / f"{split}.json").read_text())


def rows(annotations: list[dict]) -> list:
    return [(each["image_id"], each["category_id"], each["bbox"]) for each in annotations]


@pytest.mark.slow
def test_what_was_full_of_faults_trains(
    plants: Make, options: Callable[..., TrainOptions], fingerprint: Fingerprint
) -> None:
    sick = plants(train=400, val=60, test=40)
    for plant in FAULTS.values():
        plant(sick)
    data = sick.write()
    before = fingerprint(data)
    output = fixed(data)
    assert fingerprint(data) == before
    assert diagnosed(output, Examination()).errors == ()
    classes = open_split(output, "train").classes
    assert "stranger" not in classes
    assert len(set(map(str.casefold, classes))) == len(classes)
    small = {"epochs": 1, "queries": 70, "image_size": 32, "batch_size": 32}
    assert len(fit(options(data=str(output), **small)).rows) == 1


def test_a_sound_set_stays_as_it_is(plants: Make) -> None:
    data = plants(train=6, val=4).write()
    output = fixed(data)
    for split in ("train", "val"):
        old, new = document(data, split), document(output, split)
        assert rows(new["annotations"]) == rows(old["annotations"])
        names = [entry["file_name"] for entry in old["images"]]
        assert [entry["file_name"] for entry in new["images"]] == names
    assert (output / QUARANTINE).read_text().splitlines() == ["split,record,code,problem"]


@pytest.mark.parametrize("there", [False, True])
def test_after_an_error_the_output_is_as_before(
    there: bool, plants: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = plants(train=2, val=2).write()
    output = data.parent / "fixed"
    if there:
        output.mkdir()
    before = sorted(data.parent.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv, "writer", full)
    with pytest.raises(InputError, match=r"fixed: cannot be written \(No space left"):
        fixed(data)
    assert sorted(data.parent.rglob("*")) == before


def test_what_is_left_out_is_listed(plants: Make) -> None:
    sick = plants(train=12, val=4)
    planted = [
        FAULTS[name](sick)
        for name in ("no width", "three numbers", "file empty", "copy in validation", "blank")
    ]
    with (fixed(sick.write()) / QUARANTINE).open(newline="") as file:
        listed = list(csv.DictReader(file))
    for code, split, text in planted:
        record = text.partition(":")[0]
        assert [each for each in listed if each["code"] == code and record in each["record"]], text
        assert all(each["split"] == split for each in listed)
    assert len(listed) == len(planted)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT],
        lambda x, y, w, h: [x, y, x + w, y + h],
        lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
    ],
    ids=["shares", "corners", "centres"],
)
def test_another_unit_is_undone(plants: Make, change: Callable[..., list]) -> None:
    sick = plants(train=20, val=4)
    boxes = sick.documents["train"]["annotations"]
    for box in boxes:  # large enough to reach outside if they are taken for another unit
        box["bbox"][2:] = [20.0, 24.0]
    right = [list(box["bbox"]) for box in boxes]
    for box in boxes:
        box["bbox"] = change(*box["bbox"])
        del box["area"]
    written = document(fixed(sick.write()), "train")["annotations"]
    np.testing.assert_allclose([box["bbox"] for box in written], right, atol=1e-9)
    np.testing.assert_allclose([box["area"] for box in written], 480, rtol=1e-9)


def test_boxes_of_a_resized_image_are_scaled(plants: Make) -> None:
    sick = plants(train=4, val=4)
    entry, boxes = sick.image()
    right = list(boxes[0]["bbox"])
    entry.update(width=2 * WIDTH, height=2 * HEIGHT)
    for box in boxes:
        box["bbox"] = [2 * value for value in box["bbox"]]
    new = document(fixed(sick.write()), "train")
    assert (new["images"][0]["width"], new["images"][0]["height"]) == (WIDTH, HEIGHT)
    assert new["annotations"][0]["bbox"] == right


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_turn_as_their_image_does(orientation: int) -> None:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y, w, h = 7, 11, 20, 5
    pixels[y : y + h, x : x + w] = 255
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(image))
    header = Header(HEIGHT, WIDTH, orientation, "JPEG")
    left, top, wide, high = turned(np.array([[x, y, w, h]], float), header)[0].astype(int)
    assert shown[top : top + high, left : left + wide].min() == 255
    assert shown.sum() == 255 * wide * high


def test_names_that_differ_by_case_or_blanks_become_one_class(plants: Make) -> None:
    sick = plants(train=12, val=4)
    FAULTS["another case"](sick)
    FAULTS["a blank"](sick)
    old = len(sick.documents["train"]["annotations"])
    new = document(fixed(sick.write()), "train")
    assert [each["name"] for each in new["categories"]] == ["cell", "dish", "rod"]
    assert len(new["annotations"]) == old


def test_a_yolo_set_is_written_as_coco(tmp_path: Path) -> None:
    data = tmp_path / "yolo"
    for split, number in (("train", 1), ("val", 2)):
        for kind in ("images", "labels"):
            (data / split / kind).mkdir(parents=True)
        Image.new("RGB", (40, 20), (number, 90, 200)).save(data / split / "images" / "ä b.png")
        (data / split / "labels" / "ä b.txt").write_text("1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.1 0.1\n")
    (data / "data.yaml").write_text("train: train/images\nval: val/images\nnames: [cat, dog]\n")
    diagnosis = diagnosed(data, Examination(decode=False))
    output = tmp_path / "out"
    write_cleaned(cleaned(diagnosis), output)
    for split in ("train", "val"):
        before, after = open_split(data, split), open_split(output, split)
        np.testing.assert_array_equal(before.boxes_xywh, after.boxes_xywh)
        assert before.classes == after.classes
        assert [Path(path).name for path in after.paths] == ["ä b.png"]


def quarantined(folder: Path) -> list[tuple[str, str]]:
    with (folder / QUARANTINE).open(newline="") as file:
        return [(each["code"], each["record"]) for each in csv.DictReader(file)]


def test_images_of_one_id_are_left_out_with_their_boxes_and_listed(plants: Make) -> None:
    sick = plants(train=5, val=4)
    (entry, boxes), (other, more) = sick.image(), sick.image()
    other["id"] = entry["id"]
    for box in more:
        box["image_id"] = entry["id"]
    output = fixed(sick.write())
    written = document(output, "train")
    assert [each["id"] for each in written["images"]] == [3, 4, 5]
    assert {each["image_id"] for each in written["annotations"]} == {3, 4, 5}
    listed = quarantined(output)
    assert [record for code, record in listed if code == "image-id"][:2] == [
        entry["file_name"],
        other["file_name"],
    ]
    for box in (*boxes, *more):
        assert any(f"annotation {box['id']} " in record for _, record in listed)


def test_two_entries_of_one_id_and_one_file_are_one_image(plants: Make) -> None:
    sick = plants(train=5, val=4)
    entry, _ = sick.image()
    sick.documents["train"]["images"].append(dict(entry))
    output = fixed(sick.write())
    old, new = sick.documents["train"]["annotations"], document(output, "train")["annotations"]
    assert rows(new) == rows(old)
    assert [record for code, record in quarantined(output) if code == "image-id"] == [
        entry["file_name"]
    ]


def test_every_record_that_was_left_out_is_counted(plants: Make) -> None:
    sick = plants(train=5, val=4)
    boxes = sick.documents["train"]["annotations"]
    boxes += [{**boxes[0], "id": 10_000 + n, "bbox": [1, 2, 3]} for n in range(150)]
    made = cleaned(diagnosed(sick.write(), Examination(decode=False)))
    assert sum(each.count for each in made.rejected) == 150
    assert made.rejected[-1].record == "and 50 more like it"
    assert len(made.rejected) == 101


def test_a_name_that_is_not_utf_8_is_kept_and_quarantined(plants: Make) -> None:
    sick = plants(train=5, val=4)
    for number, name in enumerate((b"caf\xe9.jpg", b"\xff.jpg")):
        entry, _ = sick.image()
        old = sick.path(entry)
        entry["file_name"] = os.fsdecode(name)
        old.rename(sick.path(entry))
        if number:
            sick.path(entry).write_text("no image")
    output = fixed(sick.write())
    assert document(output, "train")["images"][0]["file_name"] == os.fsdecode(b"caf\xe9.jpg")
    assert quarantined(output) == [("image-format", r"\udcff.jpg")]
    assert [Path(path).is_file() for path in open_split(output, "train").paths] == [True] * 4
