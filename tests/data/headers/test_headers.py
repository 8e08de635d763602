"""Headers of all images are read before a training: what is wrong is found without decoding."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from od_detr.data.folders import open_split
from od_detr.data.headers import header, scan
from od_detr.data.headers.checks import with_header_findings
from od_detr.data.headers.header import read_header
from od_detr.data.headers.scan import read_headers
from od_detr.errors import InputError
from od_detr.ranks import Ranks
from od_detr.training.setup.opening import open_data

SUFFIXES = ("jpg", "jfif", "png", "webp", "bmp", "tif", "gif", "ppm", "avif", "heic")


def turned(path: Path, size: tuple[int, int] = (30, 20)) -> None:
    """An image of this (width, height) that a viewer turns by a quarter."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", size).save(path, exif=exif)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_header_has_format_and_size(suffix: str, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / f"x.{suffix}")
    found = read_header(tmp_path / f"x.{suffix}")
    assert (found.size, found.orientation, found.code) == ((20, 30), 1, "")
    assert found.format


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_rotated_image_has_the_size_that_a_viewer_shows(suffix: str, tmp_path: Path) -> None:
    turned(tmp_path / f"x.{suffix}")
    found = read_header(tmp_path / f"x.{suffix}")
    assert (found.stored_size, found.size, found.orientation) == ((20, 30), (30, 20), 6)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_header_is_read_without_decoding_unless_the_end_of_the_file_is_missing(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()

    def refuse(image: Image.Image) -> None:
        raise AssertionError(f"{image} was decoded")

    with monkeypatch.context() as patched:
        for reader in (JpegImageFile, PngImageFile):
            patched.setattr(reader, "load", refuse)
        for appended in (b"", b"\0" * 16):
            path.write_bytes(content + appended)
            assert read_header(path).code == ""
    path.write_bytes(content + b"\0" * 1000)
    assert read_header(path).code == "", "an untidy file that a viewer shows is fine"
    path.write_bytes(content[:-100])
    found = read_header(path)
    assert (found.code, "truncated" in found.problem) == ("image-unreadable", True)


WRONG = {
    "gone.jpg": (None, "image-missing", "No such file"),
    "empty.jpg": (b"", "image-format", "empty"),
    "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "image-format", "Git LFS"),
    "page.jpg": (b"<!DOCTYPE html><html></html>", "image-format", "web page"),
    "photo.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "image-format", "JPEG 2000"),
    "zeros.jpg": (bytes(1000), "image-format", "zeros"),
    "drawing.svg": (b"<?xml version='1.0'?><svg/>", "image-format", "SVG"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_image_is_named(name: str, tmp_path: Path) -> None:
    content, code, words = WRONG[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found = read_header(tmp_path / name)
    assert (found.size, found.code) == ((0, 0), code)
    assert words in found.problem
    assert found.fix


def test_formats_that_this_pillow_lacks_are_named_with_the_fix(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(header, "FORMATS", ("JPEG", "PNG"))
    for suffix, words in (("avif", "AVIF"), ("heic", "pillow-heif")):
        Image.new("RGB", (30, 20)).save(tmp_path / f"x.{suffix}")
        found = read_header(tmp_path / f"x.{suffix}")
        assert found.code == "image-format"
        assert words in f"{found.problem}; {found.fix}"


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_seen_in_the_header(kind: type, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), kind)).save(tmp_path / "x.tif")
    assert read_header(tmp_path / "x.tif").code == "image-pixels"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> list[str]:
    """Images in a folder, all worth caching and old enough for it."""
    monkeypatch.setenv("OD_DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scan, "WORTH_CACHING", 1)
    paths = [tmp_path / "images" / f"{n}.png" for n in range(5)]
    paths[0].parent.mkdir()
    for n, path in enumerate(paths):
        Image.new("L", (10 + n, 20)).save(path)
        os.utime(path, (1e9, 1e9))
    return [str(path) for path in paths]


def test_only_changed_files_are_read_again(folder: list[str], monkeypatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(scan, "read_header", lambda path: read.append(path) or read_header(path))
    first = read_headers(folder)
    assert [header.width for header in first] == [10, 11, 12, 13, 14]
    assert sorted(read) == sorted(folder)
    read.clear()
    assert read_headers(reversed(folder)) == first[::-1]
    assert read == []
    Image.new("L", (99, 20)).save(folder[2])
    assert read_headers(folder)[2].width == 99
    assert read == [folder[2]]


def test_a_file_that_could_not_be_read_is_tried_again(folder: list[str]) -> None:
    content = Path(folder[0]).read_bytes()
    Path(folder[0]).write_bytes(bytes(len(content)))
    os.utime(folder[0], (1e9, 1e9))
    assert read_headers(folder)[0].code == "image-format"
    Path(folder[0]).write_bytes(content)
    os.utime(folder[0], (1e9, 1e9))
    assert read_headers(folder)[0].code == ""


def test_a_damaged_cache_is_read_again(folder: list[str], tmp_path: Path) -> None:
    first = read_headers(folder)
    entries = list((tmp_path / "cache" / "headers").iterdir())
    assert len(entries) == 1
    entries[0].write_bytes(entries[0].read_bytes()[:-3] + b"xyz")
    assert read_headers(folder) == first


def test_an_unwritable_cache_changes_nothing(folder: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert [header.width for header in read_headers(folder)] == [10, 11, 12, 13, 14]


def test_headers_are_compared_with_the_annotations(sound: dict, write) -> None:
    root = write(sound)
    turned(root / "images" / "b.jpg", (32, 48))  # its entry says the stored size
    turned(root / "images" / "a.png")
    Image.new("RGB", (21, 20)).save(root / "images" / "c.png")
    found = with_header_findings(open_split(root, "train")).findings
    assert {(finding.record, finding.code) for finding in found} == {
        ("image 30", "image-wrong-size"),
        ("image 10", "image-exif-size"),
        ("image 20", "image-wrong-size"),
    }
    sound["images"][0] |= {"width": 20, "height": 30}  # as a viewer shows it
    (root / "train.json").write_text(json.dumps(sound))
    found = with_header_findings(open_split(root, "train")).findings
    assert [each.record for each in found if each.severity == "error"] == ["image 10", "image 20"]


def test_all_broken_images_of_both_sets_are_reported_before_anything_is_written(
    options, scenes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in scenes.rglob("*"):
        copy = data / file.relative_to(scenes)
        copy.mkdir(parents=True) if file.is_dir() else copy.write_bytes(file.read_bytes())
    images = sorted(path for path in data.rglob("*") if path.suffix in (".png", ".jpg"))
    broken = [images[0], images[5], images[-1]]
    for path in broken:
        path.write_bytes(b"no image")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError) as error:
        open_data(options(data=str(data)), Ranks())
    assert len(str(error.value).splitlines()) == 1
    text = "\n".join(error.value.details)
    assert all(str(path) in text for path in broken)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
