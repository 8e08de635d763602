"""Annotation files and images that are wrong."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.hostile.harness import FINE, REFUSED, WARNED, Case
from tests.hostile.material import Document, document, edited, open_data, written

NAN, INF = float("nan"), float("inf")
OPAQUE, SILENT, DROPPED = "opaque error", "silently wrong", "dropped without a word"
FILE = r"data/train\.json"


def box(**values: Any) -> Callable[[Path], object]:
    return edited(lambda content: content["annotations"][0].update(values))


def image(**values: Any) -> Callable[[Path], object]:
    return edited(lambda content: content["images"][0].update(values))


def category(**values: Any) -> Callable[[Path], object]:
    return edited(lambda content: content["categories"][0].update(values))


def without(section: str, key: str) -> Callable[[Path], object]:
    return edited(lambda content: content[section][0].pop(key))


def section(name: str, value: Any) -> Callable[[Path], object]:
    return edited(lambda content: content.update({name: value}))


def entries(name: str, value: Any) -> Callable[[Path], object]:
    return edited(lambda content: content[name].append(value))


def annotation_cases() -> list[Case]:
    first, photo, kind = (
        rf"{FILE}: annotation 5: ",
        rf"{FILE}: image 30: ",
        rf"{FILE}: category 90: ",
    )
    rows: list[tuple[str, Callable[[Path], object], str, str, str]] = [
        ("bbox with NaN", box(bbox=[NAN, 3, 10, 20]), REFUSED, first + "bbox", DROPPED),
        ("bbox with Infinity", box(bbox=[2, 3, INF, 20]), REFUSED, first + "bbox", SILENT),
        ("bbox with -Infinity", box(bbox=[-INF, 3, 5, 20]), REFUSED, first + "bbox", ""),
        ("bbox of 1e30", box(bbox=[1e30, 3, 10, 20]), WARNED, FILE + ".*1 of 3 boxes", DROPPED),
        ("bbox with a width of 1e30", box(bbox=[2, 3, 1e30, 20]), WARNED, FILE + ".*1 of 3 boxes",
         SILENT),
        ("bbox of 400 digits", box(bbox=[10**400, 3, 10, 20]), REFUSED, first + "bbox", ""),
        ("bbox of 1e300", box(bbox=[1e300, 3, 10, 20]), REFUSED, first + "bbox", ""),
        ("bbox of three numbers", box(bbox=[2, 3, 10]), REFUSED, first + "bbox", OPAQUE),
        ("bbox of five numbers", box(bbox=[2, 3, 10, 20, 1]), REFUSED, first + "bbox", ""),
        ("bbox empty", box(bbox=[]), REFUSED, first + "bbox", OPAQUE),
        ("bbox null", box(bbox=None), REFUSED, first + "bbox", OPAQUE),
        ("bbox of texts", box(bbox=["2", "3", "10", "20"]), REFUSED, first + "bbox", OPAQUE),
        ("bbox a text", box(bbox="2 3 10 20"), REFUSED, first + "bbox", ""),
        ("bbox an object", box(bbox={"x": 2, "y": 3}), REFUSED, first + "bbox", ""),
        ("bbox of truths", box(bbox=[True, True, True, True]), REFUSED, first + "bbox", ""),
        ("bbox nested", box(bbox=[[2, 3, 10, 20]]), REFUSED, first + "bbox", ""),
        ("bbox missing", without("annotations", "bbox"), REFUSED, first + "'bbox'", OPAQUE),
        ("negative width", box(bbox=[20, 3, -10, 20]), REFUSED, first + "bbox", DROPPED),
        ("no width", box(bbox=[2, 3, 0, 20]), WARNED, FILE + ".*1 box without area", DROPPED),
        ("box beside its image", box(bbox=[50, 3, 9, 9]), WARNED, "1 box without area", DROPPED),
        ("box over the edge", box(bbox=[20, 3, 50, 20]), WARNED, FILE + ".*1 box clipped",
         "clipped"),
        ("box of a hundredth beyond", box(bbox=[2, 3, 30.01, 20]), FINE, "", "fine"),
        ("crowd", box(iscrowd=1), WARNED, FILE + ".*1 crowd", DROPPED),
        ("iscrowd 2", box(iscrowd=2), REFUSED, first + "iscrowd", ""),
        ("iscrowd a text", box(iscrowd="no"), REFUSED, first + "iscrowd", ""),
        ("iscrowd a list", box(iscrowd=[0]), REFUSED, first + "iscrowd", ""),
        ("area missing", without("annotations", "iscrowd"), FINE, "", OPAQUE),
        ("area NaN", box(area=NAN), WARNED, first + "area", SILENT),
        ("area negative", box(area=-4), WARNED, first + "area", SILENT),
        ("area a text", box(area="12"), WARNED, first + "area", OPAQUE),
        ("area infinite", box(area=INF), WARNED, first + "area", SILENT),
        ("category undeclared", box(category_id=77), REFUSED, first + "category_id 77", OPAQUE),
        ("category negative", box(category_id=-1), REFUSED, first + "category_id -1", OPAQUE),
        ("category a text", box(category_id="90"), REFUSED, first + "category_id", OPAQUE),
        ("category a fraction", box(category_id=90.5), REFUSED, first + "category_id", ""),
        ("category of 30 digits", box(category_id=10**30), REFUSED, first + "category_id", ""),
        ("category null", box(category_id=None), REFUSED, first + "category_id", OPAQUE),
        ("category missing", without("annotations", "category_id"), REFUSED,
         first + "'category_id'", OPAQUE),
        ("image unknown", box(image_id=999), REFUSED, first + "image_id 999", SILENT),
        ("image a text", box(image_id="10"), REFUSED, first + "image_id", SILENT),
        ("image missing", without("annotations", "image_id"), REFUSED, first + "'image_id'",
         OPAQUE),
        ("image of 30 digits", box(image_id=10**30), REFUSED, first + "image_id", ""),
        ("annotation without id", without("annotations", "id"), FINE, "", SILENT),
        ("annotation id a text", box(id="five"), FINE, "", ""),
        ("annotation id twice", box(id=6), FINE, "", SILENT),
        ("annotation a list", entries("annotations", []), REFUSED, FILE + ": annotation number 3",
         ""),
        ("annotation null", entries("annotations", None), REFUSED, FILE + ": annotation number 3",
         ""),
        ("image id twice", entries("images", document()["images"][0]), REFUSED, FILE + ": image",
         SILENT),
        ("image id a text", image(id="30"), REFUSED, FILE + ": image number 0: id", ""),
        ("image id a fraction", image(id=30.0), REFUSED, FILE + ": image number 0: id", ""),
        ("image id of 30 digits", image(id=10**30), REFUSED, FILE + ": image number 0: id", ""),
        ("image id null", image(id=None), REFUSED, FILE + ": image number 0: id", ""),
        ("image id missing", without("images", "id"), REFUSED, FILE + ": image number 0: 'id'",
         OPAQUE),
        ("image width 0", image(width=0), REFUSED, photo + "width", ""),
        ("image height negative", image(height=-30), REFUSED, photo + "width", ""),
        ("image width a text", image(width="40"), REFUSED, photo + "width", ""),
        ("image width NaN", image(width=NAN), REFUSED, photo + "width", ""),
        ("image width missing", without("images", "width"), REFUSED, photo + "'width'", ""),
        ("image width of 30 digits", image(width=10**30), REFUSED, photo + "width", ""),
        ("image of another size", image(width=41), REFUSED, photo + r".*a\.png", SILENT),
        ("file name missing", without("images", "file_name"), REFUSED, photo + "'file_name'",
         OPAQUE),
        ("file name a number", image(file_name=3), REFUSED, photo + "file_name", ""),
        ("file name empty", image(file_name=""), REFUSED, photo + "file_name", ""),
        ("file name null", image(file_name=None), REFUSED, photo + "file_name", ""),
        ("file name with NUL", image(file_name="a\0.png"), REFUSED, photo + "file_name", ""),
        ("file name a lone surrogate", image(file_name="\ud800.png"), REFUSED, photo + "file_name",
         ""),
        ("file name of 300 letters", image(file_name="a" * 300 + ".png"), REFUSED,
         photo + "file_name", ""),
        ("file name of 5000 letters", image(file_name="a/" * 2500 + "a.png"), REFUSED,
         photo + "file_name", ""),
        ("file name with newlines", image(file_name="a\nb.png"), REFUSED, photo + "file_name", ""),
        ("file name a folder", image(file_name="."), REFUSED, photo + "file_name", ""),
        ("file name that is not there", image(file_name="z.png"), REFUSED,
         photo + "file_name 'z.png'", OPAQUE),
        ("same file for two images", image(file_name="c.png", width=20, height=20), WARNED,
         FILE + ".*c.png", SILENT),
        ("category id twice", entries("categories", {"id": 7, "name": "dog"}), REFUSED,
         FILE + ": category number 2", SILENT),
        ("category name twice", category(name="cat"), REFUSED, kind + "|" + FILE + ": category",
         SILENT),
        ("category name missing", without("categories", "name"), REFUSED, kind + "'name'", ""),
        ("category name a number", category(name=5), REFUSED, kind + "name", ""),
        ("category name null", category(name=None), REFUSED, kind + "name", ""),
        ("category id missing", without("categories", "id"), REFUSED, FILE + ": category number 0",
         ""),
        ("category id of 30 digits", category(id=10**30), REFUSED, FILE + ": category number 0",
         ""),
        ("a category that is a text", entries("categories", "dog"), REFUSED,
         FILE + ": category number 2", ""),
        ("no images listed", section("images", []), REFUSED, FILE + ": 'images' is empty", OPAQUE),
        ("no categories listed", section("categories", []), REFUSED, FILE, SILENT),
        ("no annotations listed", section("annotations", []), WARNED, FILE + ".*no objects",
         "fine"),
        ("images an object", section("images", {}), REFUSED, FILE + ": 'images'", ""),
        ("images null", section("images", None), REFUSED, FILE + ": 'images'", ""),
        ("annotations a text", section("annotations", "many"), REFUSED, FILE + ": 'annotations'",
         ""),
        ("categories missing", edited(lambda c: c.pop("categories")), REFUSED,
         FILE + ": 'categories'", SILENT),
        ("images missing", edited(lambda c: c.pop("images")), REFUSED, FILE + ": 'images'", OPAQUE),
        ("annotations missing", edited(lambda c: c.pop("annotations")), REFUSED,
         FILE + ": 'annotations'", OPAQUE),
        ("keys that nobody knows", section("licence", {"a": [1, {}]}), FINE, "", "fine"),
        ("corners instead of sizes", edited(as_corners), REFUSED, FILE, SILENT),
        ("normalised boxes", edited(normalised), REFUSED, FILE, SILENT),
        ("polygon in bbox", box(bbox=[[2, 3], [12, 3], [12, 23], [2, 23]]), REFUSED, first + "bbox",
         ""),
    ]  # fmt: skip
    return [
        Case("annotations", name, spoil, open_data, expected, names, peers)
        for name, spoil, expected, names, peers in rows
    ]


def as_corners(content: Document) -> None:
    content["annotations"] = [
        {"id": n, "image_id": 10, "category_id": 7, "bbox": [20 - n, 30 - n, 31, 47]}
        for n in range(12)
    ]


def normalised(content: Document) -> None:
    content["annotations"] = [
        {"id": n, "image_id": 10, "category_id": 7, "bbox": [0.1, 0.2, 0.3, 0.01 * n + 0.1]}
        for n in range(12)
    ]


def json_cases() -> list[Case]:
    sound = json.dumps(document())
    rows: list[tuple[str, str | bytes, str, str, str]] = [
        ("empty", "", REFUSED, FILE + ".*empty", ""),
        ("blank", " \n\t ", REFUSED, FILE + ".*empty", ""),
        ("cut in the middle", sound[: len(sound) // 2], REFUSED, FILE, OPAQUE),
        ("a list at the top", "[]", REFUSED, FILE + ".*list", OPAQUE),
        ("a number at the top", "3", REFUSED, FILE, ""),
        ("null at the top", "null", REFUSED, FILE, ""),
        ("two documents", sound + sound, REFUSED, FILE, ""),
        ("a comment", "// mine\n" + sound, REFUSED, FILE, ""),
        ("single quotes", sound.replace('"', "'"), REFUSED, FILE, ""),
        ("comma at the end", sound[:-1] + ",}", REFUSED, FILE, ""),
        ("deep lists", "[" * 100_000, REFUSED, FILE, ""),
        ("deep objects", '{"a":' * 100_000 + "1" + "}" * 100_000, REFUSED, FILE, ""),
        ("deep value of an unknown key", sound[:-1] + ', "x": ' + "[" * 50_000 + "]" * 50_000 + "}",
         REFUSED, FILE, ""),
        ("a number of 5000 digits", sound[:-1] + ', "x": ' + "9" * 5000 + "}", REFUSED, FILE, ""),
        ("a key twice at the top", sound[:-1] + ', "images": []}', REFUSED, FILE + ".*'images'",
         SILENT),
        ("a key twice in a box", sound.replace('"bbox": [2,', '"bbox": [1, 1, 1, 1], "bbox": [2,'),
         REFUSED, FILE + ".*object 5.*'bbox'", SILENT),
        ("bytes that are not UTF-8", b"\xff\xfe" + sound.encode(), REFUSED, FILE, ""),
        ("UTF-16", sound.encode("utf-16"), REFUSED, FILE, ""),
        ("UTF-8 with a byte order mark", b"\xef\xbb\xbf" + sound.encode(), FINE, "", ""),
        ("NUL bytes", sound.encode() + b"\0" * 64, REFUSED, FILE, ""),
        ("a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, REFUSED, FILE, ""),
        ("a web page", "<!DOCTYPE html><html></html>", REFUSED, FILE, ""),
        ("a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
         REFUSED, FILE, ""),
        ("gzip", b"\x1f\x8b\x08\0" + b"\0" * 64, REFUSED, FILE, ""),
        ("YAML", "images: []\nannotations: []\n", REFUSED, FILE, ""),
        ("a lone surrogate in a name", sound.replace("zebra", "\\ud800"), FINE, "", ""),
    ]  # fmt: skip
    cases = [
        Case("JSON", name, written(text), open_data, expected, names, peers)
        for name, text, expected, names, peers in rows
    ]
    cases.append(
        Case("JSON", "a pipe of that name", pipe_of_that_name, open_data, REFUSED, r"data")
    )
    return [
        *cases,
        Case(
            "JSON",
            "a folder of that name",
            folder_of_that_name,
            open_data,
            REFUSED,
            r"data|train\.json",
        ),
    ]


def folder_of_that_name(folder: Path) -> None:
    (folder / "data" / "train.json").unlink()
    (folder / "data" / "train.json").mkdir()


def pipe_of_that_name(folder: Path) -> None:
    (folder / "data" / "train.json").unlink()
    os.mkfifo(folder / "data" / "train.json")


# ---- images --------------------------------------------------------------------------------------


def picture(pixels: Any, name: str = "a.png", **options: Any) -> Callable[[Path], object]:
    """Replaces `a.png` by what Pillow writes for an array or image."""

    def spoil(folder: Path) -> None:
        drawn = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        drawn.save(folder / "data" / "images" / name, **options)
        if name != "a.png":
            image(file_name=name)(folder)

    return spoil


def cut(name: str, share: float) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        file = folder / "data" / "images" / name
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])

    return spoil


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header claims this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def turned(folder: Path) -> None:
    """A photo that a viewer turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(folder / "data" / "images" / "a.png", exif=exif)


def linked(folder: Path, target: str) -> None:
    file = folder / "data" / "images" / "a.png"
    file.unlink()
    file.symlink_to(target.format(outside=f"{folder}-outside"))


def unreadable(folder: Path) -> None:
    file = folder / "data" / "images" / "a.png"
    file.unlink()
    file.mkdir()


def fifo(folder: Path) -> None:
    file = folder / "data" / "images" / "a.png"
    file.unlink()
    os.mkfifo(file)


def image_cases() -> list[Case]:
    rgb = np.full((30, 40, 3), 128, np.uint8)
    grey16 = np.full((30, 40), 32768, np.uint16)
    twelve = np.linspace(0, 4095, 1200).reshape(30, 40).astype(np.uint16)
    photo = rf"{FILE}: image 30: .*a\.png"
    name = "data/images/a.png"
    rows: list[tuple[str, Callable[[Path], object], str, str, str]] = [
        ("cut PNG", cut("a.png", 0.5), REFUSED, photo, OPAQUE),
        ("cut to its header", cut("a.png", 0.01), REFUSED, photo, OPAQUE),
        ("cut JPEG", cut("b.jpg", 0.5), REFUSED, rf"{FILE}: image 10: .*b\.jpg", OPAQUE),
        ("empty file", written(b"", name), REFUSED, photo, OPAQUE),
        ("text", written("no image", name), REFUSED, photo, OPAQUE),
        ("web page", written("<html></html>", name), REFUSED, photo, OPAQUE),
        ("Git LFS pointer",
         written("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", name),
         REFUSED, photo, OPAQUE),
        ("SVG", written('<svg xmlns="http://www.w3.org/2000/svg"/>', name), REFUSED, photo, OPAQUE),
        ("PDF", written(b"%PDF-1.4\n", name), REFUSED, photo, OPAQUE),
        ("PostScript", written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n", name),
         REFUSED, photo, OPAQUE),
        ("400 million pixels", written(png(20_000, 20_000), name), REFUSED, photo,
         "opaque error, D-FINE decodes it"),
        ("4 billion by 4 billion pixels", written(png(2**31 - 1, 2**31 - 1), name), REFUSED, photo,
         OPAQUE),
        ("no pixels", written(png(0, 0), name), REFUSED, photo, OPAQUE),
        ("fewer pixels than its header says", written(png(40, 30, b"\0" * 100), name), REFUSED,
         photo, OPAQUE),
        ("another size than its entry", picture(rgb[:20]), REFUSED, photo, SILENT),
        ("turned by EXIF", turned, REFUSED, photo, SILENT),
        ("grey", picture(rgb[..., 0]), FINE, "", "fine"),
        ("one bit", picture(Image.new("1", (40, 30))), FINE, "", "fine"),
        ("palette", picture(Image.fromarray(rgb).convert("P")), FINE, "", "fine"),
        ("transparent", picture(Image.new("RGBA", (40, 30), (9, 9, 9, 0))), FINE, "", "fine"),
        ("CMYK", picture(Image.new("CMYK", (40, 30)), "a.jpg"), FINE, "", "fine"),
        ("16 bits of grey", picture(grey16), FINE, "", SILENT),
        ("12 bits in 16", picture(twelve), REFUSED, photo, SILENT),
        ("32-bit whole numbers",
         picture(Image.fromarray(np.full((30, 40), 70_000, np.int32)), "a.tif"),
         REFUSED, r"image 30: .*a\.tif", SILENT),
        ("32-bit floats", picture(Image.fromarray(np.ones((30, 40), np.float32)), "a.tif"), REFUSED,
         r"image 30: .*a\.tif", SILENT),
        ("animated GIF",
         picture(Image.new("P", (40, 30)), "a.gif", save_all=True,
                 append_images=[Image.new("P", (40, 30))]), FINE, "", "fine"),
        ("JPEG called PNG", written_jpeg, FINE, "", "fine"),
        ("a folder of that name", unreadable, REFUSED, r"image 30", OPAQUE),
        ("a pipe of that name", fifo, REFUSED, r"image 30", "hangs"),
        ("link out of the data", partial(linked, target="{outside}/images/a.png"), WARNED,
         r"a\.png|link", SILENT),
        ("link to nothing", partial(linked, target="nothing.png"), REFUSED, r"image 30.*a\.png",
         OPAQUE),
        ("link to itself", partial(linked, target="a.png"), REFUSED, r"image 30.*a\.png", OPAQUE),
        ("link to a device", partial(linked, target="/dev/zero"), REFUSED, r"image 30.*a\.png",
         "hangs"),
    ]  # fmt: skip
    return [
        Case("images", name, spoil, open_data, expected, names, peers, "link out" in name)
        for name, spoil, expected, names, peers in rows
    ]


def written_jpeg(folder: Path) -> None:
    Image.new("RGB", (40, 30)).save(folder / "data" / "images" / "a.png", "JPEG")


def path_cases() -> list[Case]:
    photo = rf"{FILE}: image 30: file_name"
    names = {
        "climbing out": "../../{outside}/images/a.png",
        "climbing to a system file": "../../../../../../../../etc/passwd",
        "absolute": "{outside}/images/a.png",
        "absolute to a system file": "/etc/passwd",
        "climbing with backslashes": "..\\..\\{outside}\\images\\a.png",
        "a drive": "C:\\images\\a.png",
        "a network share": "\\\\server\\share\\a.png",
        "an address": "https://example.com/a.png",
        "a file address": "file:///etc/passwd",
        "climbing inside a name": "x/../../../{outside}/images/a.png",
        "home": "~/a.png",
        "a variable": "$HOME/a.png",
        "a glob": "*.png",
    }

    def spoil(name: str) -> Callable[[Path], object]:
        def renamed(folder: Path) -> None:
            outside = f"{folder}-outside"
            shown = outside if name.startswith("{") else Path(outside).name
            image(file_name=name.format(outside=shown))(folder)

        return renamed

    peers = {"climbing out": SILENT, "absolute": SILENT, "climbing to a system file": OPAQUE}
    return [
        Case("paths", title, spoil(name), open_data, REFUSED, photo, peers.get(title, ""))
        for title, name in names.items()
    ]


def data_cases() -> list[Case]:
    return [*annotation_cases(), *json_cases(), *image_cases(), *path_cases()]
