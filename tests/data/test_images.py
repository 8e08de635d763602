"""Whatever the file, the pixels are those a viewer shows; whatever is wrong with it is said."""

from __future__ import annotations

import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from od_detr.cli.program import ended_by_signals
from od_detr.data import images
from od_detr.data.headers import header
from od_detr.data.headers.header import read_header
from od_detr.data.images import read_image
from od_detr.errors import InputError, Interrupted


@pytest.fixture
def picture() -> Image.Image:
    rows, columns = np.mgrid[:24, :32]
    return Image.fromarray(np.stack([rows * 10, columns * 7, rows + columns], 2).astype(np.uint8))


MODES = {
    "png": ("RGB", "L", "1", "P", "RGBA", "LA"),
    "jpg": ("RGB", "L", "CMYK", "YCbCr"),
    "jfif": ("RGB",),
    "avif": ("RGB", "RGBA"),
    "heic": ("RGB", "RGBA"),
    "webp": ("RGB", "L", "RGBA"),
    "bmp": ("RGB", "L", "1", "P"),
    "tif": ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"),
    "gif": ("RGB", "L", "1", "P", "RGBA"),
}


@pytest.mark.parametrize(
    ("suffix", "mode"), [(suffix, mode) for suffix, modes in MODES.items() for mode in modes]
)
def test_any_mode_becomes_the_rgb_pillow_shows(
    picture: Image.Image, tmp_path: Path, mode: str, suffix: str
) -> None:
    picture.convert(mode).save(tmp_path / f"x.{suffix}")
    pixels = read_image(tmp_path / f"x.{suffix}")
    assert pixels.dtype == torch.uint8
    shown = np.asarray(Image.open(tmp_path / f"x.{suffix}").convert("RGB"))
    assert np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - shown).max() <= 2


def test_transparency_is_dropped(picture: Image.Image, tmp_path: Path) -> None:
    picture.putalpha(Image.new("L", picture.size, 40))
    picture.save(tmp_path / "x.png")
    assert np.array_equal(read_image(tmp_path / "x.png").permute(1, 2, 0), picture.convert("RGB"))


def test_sixteen_bit_grey_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)
    Image.fromarray(shades).save(tmp_path / "x.png")
    pixels = read_image(tmp_path / "x.png")
    assert np.abs(pixels[1].numpy() - shades / 257).max() <= 0.5
    assert torch.equal(pixels[0], pixels[2])


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=r"x\.tif.*floating"):
        read_image(tmp_path / "x.tif")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG_END = chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "behind"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_exif_orientation_is_honoured_and_known_from_the_header(
    tmp_path: Path, orientation: int, suffix: str, mode: str
) -> None:
    """Pillow's size of a TIFF is that after the rotation; a PNG may say it behind its pixels."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16] = 255  # the corner that wanders
    exif = Image.Exif()
    exif[274] = orientation
    image, path = Image.fromarray(pixels).convert(mode), tmp_path / f"x.{suffix}"
    if suffix == "behind":
        image.save(path, "PNG")
        path.write_bytes(path.read_bytes()[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + PNG_END)
    else:
        image.save(path, exif=exif, quality=100)
    # The eight orientations of the EXIF standard, as numpy spells them.
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
    found = read_header(path)
    assert (found.size, found.stored_size) == (upright.shape[:2], (32, 48))
    read = read_image(path, upright.shape[:2]).permute(1, 2, 0).numpy()
    assert np.abs(read.astype(int) - upright).max() <= 8
    if orientation >= 5:
        with pytest.raises(InputError, match="is 32 x 48 pixels after its EXIF rotation, but its"):
            read_image(path, (32, 48))


def test_pixels_of_another_size_than_the_header_says_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a decoder does: boxes and the sizes of batches go by the header."""
    Image.new("RGB", (30, 20)).save(tmp_path / "x.png")
    monkeypatch.setattr(images, "rgb_of", lambda *_: np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(InputError, match=r"x\.png: is 30 x 20 pixels by its header, but 20 x 30 "):
        read_image(tmp_path / "x.png")


def test_both_jpeg_decoders_give_the_same_pixels(
    picture: Image.Image, tmp_path: Path, monkeypatch
) -> None:
    pytest.importorskip("simplejpeg")
    for mode, subsampling in (("RGB", 0), ("RGB", 2), ("L", 0)):
        picture.convert(mode).save(tmp_path / "x.jpg", quality=90, subsampling=subsampling)
        fast = read_image(tmp_path / "x.jpg")
        with monkeypatch.context() as without:
            without.setattr(images, "simplejpeg", None)
            slow = read_image(tmp_path / "x.jpg")
        assert (fast.int() - slow.int()).abs().max() <= 1


def bomb() -> bytes:
    """A PNG of a hundred bytes that claims 400 megapixels."""
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0"))
        + PNG_END
    )


def test_a_file_that_is_no_sound_image_is_one_line_with_its_name(
    picture: Image.Image, tmp_path: Path
) -> None:
    picture.resize((320, 240)).save(tmp_path / "whole.jpg")
    picture.resize((320, 240)).save(tmp_path / "whole.png")
    jpeg, png = (tmp_path / "whole.jpg").read_bytes(), (tmp_path / "whole.png").read_bytes()
    broken = {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "head.jpg": jpeg[:20],
        "flipped.png": png[:60] + bytes([png[60] ^ 255]) + png[61:],
        "empty.jpg": b"",
        "text.jpg": b"no image at all\n" * 20,
        "bomb.png": bomb(),
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as error:
            read_image(tmp_path / name)
        assert name in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(InputError, match=r"gone\.png: No such file"):
        read_image(tmp_path / "gone.png")


def test_an_image_a_little_too_large_is_refused_like_a_bomb(tmp_path: Path, monkeypatch) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "x.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    with pytest.raises(InputError, match=r"x\.png: 30 x 20 pixels are too many"):
        read_image(tmp_path / "x.png")


def test_pixels_whose_range_is_unknown_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 1 << 20, np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=r"x\.tif.*32-bit"):
        read_image(tmp_path / "x.tif")
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png.*16-bit pixels of at most 4095"):
        read_image(tmp_path / "x.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").max() == 0


@pytest.mark.parametrize(
    ("read", "module", "step"), [(read_image, images, "_decode"), (read_header, header, "_header")]
)
def test_a_signal_while_a_file_is_read_is_no_damage_to_it(
    read: Callable[[Path], object],
    module: ModuleType,
    step: str,
    picture: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture.save(tmp_path / "x.png")
    monkeypatch.setattr(module, step, lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted) as stop, ended_by_signals():
        read(tmp_path / "x.png")
    assert stop.value.status == 143
