"""Faults as data sets have them: how each is planted, and what must be found."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image
from tests.doctor.conftest import HEIGHT, WIDTH, Plants, picture

# What must be found: the code of the problem, the split, and a text in one of its examples.
Expected = tuple[str, str, str]
Fault = Callable[[Plants], Expected]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    """Registers a fault under the function's name."""
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


def file_fault(name: str, code: str, spoil: Callable[[Plants, dict[str, Any]], None]) -> None:
    """A fault of an image's file or entry."""

    def plant(plants: Plants) -> Expected:
        entry, _ = plants.image()
        spoil(plants, entry)
        return code, "train", str(entry["file_name"])

    FAULTS[name] = plant


def box_fault(name: str, code: str, spoil: Callable[[dict[str, Any]], None]) -> None:
    """A fault of one box."""

    def plant(plants: Plants) -> Expected:
        _, boxes = plants.image()
        spoil(boxes[0])
        return code, "train", f"annotation {boxes[0]['id']}"

    FAULTS[name] = plant


def rewritten(save: Callable[[Image.Image, Any], None]) -> Callable[[Plants, dict[str, Any]], None]:
    """Saves the image's pixels in another way under its name."""

    def spoil(plants: Plants, entry: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        with Image.open(plants.path(entry)) as image:
            save(image.copy(), buffer)
        plants.path(entry).write_bytes(buffer.getvalue())

    return spoil


def content(data: bytes) -> Callable[[Plants, dict[str, Any]], None]:
    """Another content of the file."""

    def spoil(plants: Plants, entry: dict[str, Any]) -> None:
        plants.path(entry).write_bytes(data)

    return spoil


def cut(format_name: str) -> Callable[[Plants, dict[str, Any]], None]:
    """All but the end of the file in this format."""

    def spoil(plants: Plants, entry: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        with Image.open(plants.path(entry)) as image:
            image.save(buffer, format_name)
        plants.path(entry).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 9 // 10])

    return spoil


def spoiled_inside(plants: Plants, entry: dict[str, Any]) -> None:
    """A PNG whose ends are whole, with other bytes in the middle."""
    buffer = io.BytesIO()
    with Image.open(plants.path(entry)) as image:
        image.save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    plants.path(entry).write_bytes(data)


def resized(width: int, height: int) -> Callable[[Plants, dict[str, Any]], None]:
    """An image of another size, and an entry that says so."""

    def spoil(plants: Plants, entry: dict[str, Any]) -> None:
        picture(entry["id"]).resize((width, height)).save(plants.path(entry))
        entry |= {"width": width, "height": height}

    return spoil


def with_exif(image: Image.Image, buffer: Any, orientation: int) -> None:
    """Saves with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(buffer, "JPEG", exif=exif)


def entry_fault(**values: Any) -> Callable[[Plants, dict[str, Any]], None]:
    """Other values in the image's entry."""
    return lambda _, entry: entry.update(values)


# ---- image files --------------------------------------------------------------------

file_fault("file missing", "image-file", lambda plants, entry: plants.path(entry).unlink())
file_fault("file empty", "image-format", content(b""))
file_fault("file cut short, JPEG", "image-unreadable", cut("JPEG"))
file_fault("file cut short, PNG", "image-unreadable", cut("PNG"))
file_fault("file is a text", "image-format", content(b"version https://git-lfs\noid 12"))
file_fault("file is a web page", "image-format", content(b"<!doctype html><p>404</p>"))
file_fault("file is zeros", "image-format", content(bytes(4096)))
file_fault(
    "format unsupported",
    "image-format",
    rewritten(lambda image, buffer: image.save(buffer, "TGA")),
)
file_fault(
    "pixels are floats",
    "image-pixels",
    rewritten(lambda image, buffer: image.convert("F").save(buffer, "TIFF")),
)
file_fault("entry of another size", "image-wrong-size", entry_fault(width=128, height=96))
file_fault("sides exchanged", "image-wrong-size", entry_fault(width=HEIGHT, height=WIDTH))
file_fault("EXIF turns", "image-exif-size", rewritten(lambda i, buffer: with_exif(i, buffer, 6)))
file_fault("EXIF flips", "image-exif", rewritten(lambda i, buffer: with_exif(i, buffer, 3)))
for _name, _code, _grey in (
    ("blank", "image-blank", (128, 128, 128)),
    ("black", "image-blank", (0, 0, 0)),
):
    file_fault(
        _name,
        _code,
        rewritten(
            lambda image, buffer, grey=_grey: Image.new("RGB", image.size, grey).save(buffer, "PNG")
        ),
    )
file_fault(
    "dark",
    "image-dark",
    rewritten(
        lambda image, buffer: image.point([v // 14 for v in range(256)] * 3).save(buffer, "PNG")
    ),
)
file_fault(
    "overexposed",
    "image-bright",
    rewritten(
        lambda image, buffer: image.point([245 + v // 25 for v in range(256)] * 3).save(
            buffer, "PNG"
        )
    ),
)
file_fault("small", "image-small", resized(48, 24))
file_fault("long", "image-long", resized(480, 40))
file_fault(
    "animated",
    "image-frames",
    rewritten(
        lambda image, buffer: image.save(
            buffer, "GIF", save_all=True, append_images=[image.rotate(180)]
        )
    ),
)
file_fault(
    "transparent",
    "image-alpha",
    rewritten(lambda image, buffer: image.convert("RGBA").save(buffer, "PNG")),
)
file_fault(
    "CMYK",
    "image-colours",
    rewritten(lambda image, buffer: image.convert("CMYK").save(buffer, "JPEG")),
)
file_fault(
    "16 bits",
    "image-colours",
    rewritten(
        lambda image, buffer: (
            image.convert("I").point(lambda v: v * 200).convert("I;16").save(buffer, "PNG")
        )
    ),
)
file_fault(
    "name of another format",
    "image-suffix",
    rewritten(lambda image, buffer: image.save(buffer, "WEBP")),
)


@fault
def file_in_no_split(plants: Plants) -> Expected:
    picture(90_001).save(plants.root / "images" / "train" / "loose.png")
    return "image-unlisted", "", "loose.png"


@fault
def file_listed_twice(plants: Plants) -> Expected:
    entry, _ = plants.image()
    plants.documents["train"]["images"].append(entry | {"id": 90_002})
    return "image-listed-twice", "train", str(entry["file_name"])


@fault
def file_name_climbs(plants: Plants) -> Expected:
    entry, _ = plants.image()
    entry["file_name"] = f"../val/{entry['file_name']}"
    return "image-file", "train", str(entry["file_name"])


@fault
def file_name_is_absolute(plants: Plants) -> Expected:
    entry, _ = plants.image()
    entry["file_name"] = str(plants.path(entry).absolute())
    return "image-file", "train", f"image {entry['id']}"


@fault
def file_is_a_link_out(plants: Plants) -> Expected:
    entry, _ = plants.image()
    path, elsewhere = plants.path(entry), plants.root.parent / "elsewhere.jpg"
    shutil.move(path, elsewhere)
    os.symlink(elsewhere, path)
    return "image-link", "train", str(entry["file_name"])


@fault
def image_id_twice(plants: Plants) -> Expected:
    entry, _ = plants.image()
    other, _ = plants.image()
    other["id"] = entry["id"]
    return "image-id", "train", f"id {entry['id']}"


def _entries() -> Iterator[tuple[str, str, dict[str, Any]]]:
    yield "height is zero", "image-size", {"height": 0}
    yield "height is a text", "image-height", {"height": "48"}
    yield "width is a fraction", "image-width", {"width": 64.5}
    yield "file name is a number", "image-file_name", {"file_name": 7}


def _entry(code: str, values: dict[str, Any]) -> Fault:
    def plant(plants: Plants) -> Expected:
        entry, _ = plants.image()
        entry.update(values)
        says = entry["file_name"] if code == "image-size" else f"image {entry['id']}"
        return code, "train", says

    return plant


for _name, _code, _values in _entries():
    FAULTS[_name] = _entry(_code, _values)


# ---- images that are there twice ----------------------------------------------------


def copied(
    plants: Plants, split: str, target: str, save: Callable[[Image.Image, Any], None] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Puts an image, its boxes too, into the place of one of another split."""
    entry, boxes = plants.image(split)
    other, others = plants.image(target)
    for own, new in zip(others, boxes, strict=True):
        own.update(bbox=list(new["bbox"]), area=new["area"], category_id=new["category_id"])
    if save is None:
        shutil.copy(plants.path(entry, split), plants.path(other, target))
    else:
        with Image.open(plants.path(entry, split)) as image:
            save(image, plants.path(other, target))
    return entry, other


def coarser(image: Image.Image, path: Any) -> None:
    """Saves with a lower quality."""
    image.save(path, "JPEG", quality=60)


@fault
def copy_in_the_split(plants: Plants) -> Expected:
    _, other = copied(plants, "train", "train", None)
    return "image-repeated", "train", other["file_name"]


@fault
def copy_with_other_boxes(plants: Plants) -> Expected:
    entry, _ = plants.image()
    other, boxes = plants.image()
    shutil.copy(plants.path(entry), plants.path(other))
    boxes[0]["bbox"] = [30, 30, 20, 10]
    return "image-labelled-twice", "train", other["file_name"]


@fault
def near_copy_in_the_split(plants: Plants) -> Expected:
    _, other = copied(plants, "train", "train", coarser)
    return "image-nearly-repeated", "train", other["file_name"]


@fault
def copy_in_validation(plants: Plants) -> Expected:
    entry, other = copied(plants, "train", "val", None)
    return "image-leaked", "train", f"{entry['file_name']}: like {other['file_name']} of val"


@fault
def near_copy_in_validation(plants: Plants) -> Expected:
    entry, other = copied(plants, "train", "val", coarser)
    return "image-nearly-leaked", "train", f"{entry['file_name']}: like {other['file_name']}"


@fault
def copy_in_test(plants: Plants) -> Expected:
    entry, other = copied(plants, "val", "test", None)
    return "image-leaked", "val", f"{entry['file_name']}: like {other['file_name']} of test"


# ---- boxes --------------------------------------------------------------------------


def bbox(*values: Any) -> Callable[[dict[str, Any]], None]:
    """Another box, with its area."""

    def spoil(box: dict[str, Any]) -> None:
        box["bbox"] = list(values)
        del box["area"]

    return spoil


for _name, _code, _spoil in (
    ("no width", "box-empty", bbox(9, 9, 0, 12)),
    ("no height", "box-empty", bbox(9, 9, 12, 0)),
    ("right of the image", "box-off-image", bbox(70, 9, 12, 12)),
    ("above the image", "box-off-image", bbox(9, -30, 12, 12)),
    ("over the right edge", "box-overhang", bbox(50, 9, 40, 12)),
    ("over the top edge", "box-overhang", bbox(9, -9, 12, 20)),
    ("two corners", "box-overhang", bbox(40, 9, 60, 30)),
    ("normalised", "box-below-pixel", bbox(0.4, 0.4, 0.2, 0.3)),
    ("thinner than a pixel", "box-below-pixel", bbox(9, 9, 30, 0.4)),
    ("thin", "box-thin", bbox(2, 9, 60, 1.5)),
    ("whole image", "box-whole-image", bbox(0, 0, 64, 48)),
    ("far away", "box-far", bbox(9, 9, 3e7, 12)),
    ("tiny for training", "fit-small", bbox(40, 40, 4, 4)),
    ("three numbers", "annotation-bbox", bbox(1, 2, 3)),
    ("numbers as texts", "annotation-bbox", bbox("1", "2", "3", "4")),
    ("not a number", "annotation-bbox", bbox(float("nan"), 2, 3, 4)),
    ("infinite", "annotation-bbox", bbox(1, 2, float("inf"), 4)),
    ("negative width", "annotation-bbox", bbox(30, 9, -12, 12)),
    ("no bbox", "annotation-bbox", lambda box: box.pop("bbox") and None),
    ("area larger than the box", "box-area", lambda box: box.update(area=3000)),
    ("area is a text", "annotation-area", lambda box: box.update(area="large")),
    ("area is negative", "annotation-area", lambda box: box.update(area=-5)),
    ("no such image", "annotation-image_id", lambda box: box.update(image_id=99_999)),
    ("no image", "annotation-image_id", lambda box: box.pop("image_id") and None),
    ("no such category", "annotation-category_id", lambda box: box.update(category_id=77)),
    ("category by name", "annotation-category_id", lambda box: box.update(category_id="cell")),
    ("crowd of two", "annotation-iscrowd", lambda box: box.update(iscrowd=2)),
    ("crowd", "split-crowds", lambda box: box.update(iscrowd=1)),
):
    box_fault(_name, _code, _spoil)


def _second(code: str, change: dict[str, Any], category: int) -> Fault:
    """A second box like the first one of its image."""

    def plant(plants: Plants) -> Expected:
        _, boxes = plants.image()
        boxes[1].update(boxes[0] | {"id": boxes[1]["id"], "category_id": category} | change)
        return code, "train", f"annotation {boxes[1]['id']}"

    return plant


FAULTS["same box again"] = _second("box-repeated", {}, 1)
FAULTS["same box, another class"] = _second("box-two-classes", {}, 2)


@fault
def nearly_the_same_box(plants: Plants) -> Expected:
    _, boxes = plants.image()
    boxes[0]["bbox"], boxes[1]["bbox"] = [5, 5, 40, 30], [5, 5, 41, 30]
    boxes[1]["category_id"] = boxes[0]["category_id"]
    return "box-nearly-repeated", "train", f"annotation {boxes[1]['id']}"


@fault
def same_box_everywhere(plants: Plants) -> Expected:
    for _ in range(10):
        _, boxes = plants.image()
        boxes[2]["bbox"] = [42, 30, 12, 12]
    return "box-same-everywhere", "train", f"annotation {boxes[2]['id']}"


@fault
def record_is_a_list(plants: Plants) -> Expected:
    plants.documents["train"]["annotations"].append([1, 2, 3])
    place = len(plants.documents["train"]["annotations"]) - 1
    return "record", "train", f"annotation number {place}"


@fault
def key_twice(plants: Plants) -> Expected:
    _, boxes = plants.image()
    identity = boxes[0]["id"]
    plants.replaced.append((f'"id": {identity},', f'"id": {identity}, "iscrowd": 1,'))
    return "repeated-key", "train", f"object {identity}"


@fault
def more_objects_than_queries(plants: Plants) -> Expected:
    return _crowded(plants, 60, "fit-queries")


@fault
def nearly_as_many_objects_as_queries(plants: Plants) -> Expected:
    return _crowded(plants, 30, "fit-queries-few")


def _crowded(plants: Plants, count: int, code: str) -> Expected:
    entry, boxes = plants.image()
    new = [
        boxes[0] | {"id": 100_000 + 100 * entry["id"] + n, "bbox": [n % 10 * 5, n // 10 * 7, 9, 9]}
        for n in range(count)
    ]
    plants.documents["train"]["annotations"] += new
    return code, "train", str(entry["file_name"])


# ---- classes and splits -------------------------------------------------------------


def _category(name: str, split: str = "train", boxes: int = 0) -> Callable[[Plants], int]:
    """Adds a category, and boxes of it in one split."""

    def add(plants: Plants) -> int:
        identity = 10 + max(each["id"] for each in plants.documents["train"]["categories"])
        for document in plants.documents.values():
            document["categories"].append({"id": identity, "name": name})
        for _ in range(boxes):
            plants.image(split)[1][2]["category_id"] = identity
        return identity

    return add


def class_fault(name: str, code: str, add: Callable[[Plants], int], says: str) -> None:
    """A fault of a class, reported for the whole set or for training."""

    def plant(plants: Plants) -> Expected:
        add(plants)
        return code, "train", says

    FAULTS[name] = plant


class_fault("another case", "class-names-alike", _category("Cell", boxes=3), "'cell' and 'Cell'")
class_fault("a blank", "class-names-alike", _category("di sh", boxes=3), "'dish' and 'di sh'")
class_fault("blank at the end", "class-name", _category("tail ", boxes=2), "'tail '")
class_fault("name is a number", "class-name", _category("7", boxes=2), "'7'")
class_fault("without boxes", "class-unused", _category("ghost"), "'ghost'")
class_fault("nothing to train on", "class-untrained", _category("yeast", "val", 2), "'yeast'")
class_fault("nothing to evaluate", "class-unmeasured", _category("spore", boxes=4), "'spore'")
class_fault("few boxes", "class-rare", _category("worm", boxes=5), "'worm' has 5")


@fault
def category_name_twice(plants: Plants) -> Expected:
    identity = _category("rod")(plants)
    return "category-name", "train", f"category {identity}"


@fault
def category_id_twice(plants: Plants) -> Expected:
    plants.documents["train"]["categories"].append({"id": 3, "name": "stick"})
    return "category-id", "train", "id 3"


@fault
def parent_of_all(plants: Plants) -> Expected:
    for document in plants.documents.values():
        document["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        for category in document["categories"][1:]:
            category["supercategory"] = "things"
    return "root-category", "train", "'things'"


@fault
def class_unknown_to_training(plants: Plants) -> Expected:
    plants.documents["val"]["categories"].append({"id": 900, "name": "stranger"})
    plants.image("val")[1][0]["category_id"] = 900
    return "category-unknown", "val", "'stranger'"


@fault
def split_in_shares_of_the_image(plants: Plants) -> Expected:
    for box in plants.documents["test"]["annotations"]:
        x, y, w, h = box["bbox"]
        box["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]
    return "box-normalised", "test", "normalised"


# The last one, so that the others keep their images.
file_fault("pixels spoiled, PNG", "image-undecodable", spoiled_inside)
