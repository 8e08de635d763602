"""What an evaluation with `--on-unreadable skip` leaves out, in each format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from od_detr.data.annotations import Annotations
from od_detr.data.findings import MOST_OF_A_KIND, raise_errors
from od_detr.data.folders import open_split
from od_detr.errors import InputError
from od_detr.inference.reading import Reading

SOUND, BAD = 5, MOST_OF_A_KIND + 5
WIDTH, HEIGHT = 40, 30
BOX = (4, 6, 20, 12)  # x, y, width, height in pixels
XML = (
    "<annotation><filename>{name}</filename><size><width>40</width><height>30</height></size>"
    "<object><name>cat</name><bndbox><xmin>5</xmin><ymin>7</ymin><xmax>24</xmax><ymax>18</ymax>"
    "</bndbox></object></annotation>"
)


def coco(folder: Path, names: list[str], split: str) -> Path:
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(names)
    ]
    boxes = [{"image_id": image["id"], "category_id": 1, "bbox": BOX} for image in images]
    categories = [{"id": 1, "name": "cat"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(content))
    return folder / split


def yolo(folder: Path, names: list[str], split: str) -> Path:
    (folder / "data.yaml").write_text(f"{split}: {split}.txt\nnames: [cat]\n")
    images, labels = folder / "images" / split, folder / "labels" / split
    labels.mkdir(parents=True)
    (folder / f"{split}.txt").write_text("".join(f"images/{split}/{name}\n" for name in names))
    for name in names:
        (labels / name).with_suffix(".txt").write_text("0 0.35 0.4 0.5 0.4\n")
    return images


def voc(folder: Path, names: list[str], split: str) -> Path:
    lists = folder / "ImageSets" / "Main"
    for each in (lists, folder / "Annotations"):
        each.mkdir(parents=True)
    (lists / f"{split}.txt").write_text("".join(f"{Path(name).stem}\n" for name in names))
    for name in names:
        file = folder / "Annotations" / name
        file.with_suffix(".xml").write_text(XML.format(name=name))
    return folder / "JPEGImages"


WRITERS = {"coco": coco, "yolo": yolo, "voc": voc}
Write = Callable[[Path, list[str], str], Path]


def data_set(folder: Path, write: Write, spoil: str, bad: int, split: str = "val") -> Path:
    """`SOUND` images and `bad` spoilt ones, mixed in the order of their names."""
    folder.mkdir()
    names = [f"{number:03}.png" for number in range(bad + SOUND)]
    images = write(folder, names, split)
    images.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        if number % 2 and number < 2 * SOUND:
            Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(images / name)
        elif spoil == "broken":
            (images / name).write_bytes(b"version https://git-lfs")
    return folder


def objects(found: Annotations) -> dict[str, list]:
    return {
        name: [found.boxes_xywh[found.starts[image] : found.starts[image + 1]].tolist(), size]
        for image, (name, size) in enumerate(zip(found.names, found.sizes.tolist(), strict=True))
    }


@pytest.mark.parametrize("spoil", ["broken", "missing"])
@pytest.mark.parametrize("format_name", WRITERS)
def test_each_unreadable_image_of_each_format_is_left_out_and_named(
    format_name: str, spoil: str, tmp_path: Path
) -> None:
    """Also where findings of a kind are so many that the last one counts the others."""
    data = data_set(tmp_path / "data", WRITERS[format_name], spoil, BAD)
    annotations = open_split(data, "val")
    with pytest.raises(InputError, match=r"00\d\.(png|xml).*104 more"):
        raise_errors(Reading(annotations).annotations.findings)
    reading = Reading(annotations, "skip")
    raise_errors(reading.annotations.findings)
    sound = [f"{2 * number + 1:03}.png" for number in range(SOUND)]
    expected = [[pytest.approx(BOX)]]
    assert objects(reading.annotations) == {name: [*expected, [HEIGHT, WIDTH]] for name in sound}
    others = sorted({f"{number:03}.png" for number in range(BAD + SOUND)} - set(sound))
    assert len(reading.skipped) == len(others) == BAD
    for name, line in zip(others, reading.skipped, strict=True):
        assert f"{name}: " in line


def test_a_set_without_splits_is_divided_in_the_same_way_when_a_file_is_gone(
    tmp_path: Path,
) -> None:
    data = data_set(tmp_path / "data", coco, "missing", 20, "annotations")
    (data / "annotations").rename(data / "images")
    divided = {split: list(open_split(data, split).names) for split in ("train", "val")}
    assert all(divided.values())
    for image in range(25):
        Image.new("RGB", (WIDTH, HEIGHT)).save(data / "images" / f"{image:03}.png")
    assert divided == {split: list(open_split(data, split).names) for split in ("train", "val")}
