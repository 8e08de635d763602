"""The image formats that are read, and names for the content of files that are none of them."""

from __future__ import annotations

from PIL import features

try:
    import pillow_heif
except ImportError:  # an optional package; without it HEIC files are only named
    pillow_heif = None

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
if features.check("avif"):
    FORMATS += ("AVIF",)
if pillow_heif is not None:
    pillow_heif.register_heif_opener()
    FORMATS += ("HEIF",)

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".jpe", ".dib"),
)
REPLACE = "replace or remove the file"
CONVERT = "convert it to JPEG or PNG"
# How files begin that people take for images: first byte of the text, text, content, fix.
BEGINNINGS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not an image", "run git lfs pull"),
    (4, b"ftypavi", "is an AVIF image, which this Pillow cannot read", CONVERT),
    (4, b"ftyphei", "is a HEIC image", f"pip install pillow-heif, or {CONVERT}"),
    (4, b"ftyphev", "is a HEIC image", f"pip install pillow-heif, or {CONVERT}"),
    (4, b"ftypmif1", "is a HEIC image", f"pip install pillow-heif, or {CONVERT}"),
    (4, b"ftypmsf1", "is a HEIC image", f"pip install pillow-heif, or {CONVERT}"),
    (4, b"ftypcrx", "is a raw camera image", CONVERT),
    (4, b"ftyp", "is a video", "extract its frames"),
    (0, b"\x00\x00\x00\x0cjP  ", "is a JPEG 2000 image", CONVERT),
    (0, b"\xff\x4f\xff\x51", "is a JPEG 2000 image", CONVERT),
    (0, b"\x00\x00\x00\x0cJXL ", "is a JPEG XL image", CONVERT),
    (0, b"\xff\x0a", "is a JPEG XL image", CONVERT),
    (0, b"8BPS", "is a Photoshop document", CONVERT),
    (0, b"%PDF", "is a PDF document", CONVERT),
    (0, b"%!PS", "is a PostScript document", CONVERT),
    (0, b"PK\x03\x04", "is a ZIP archive", "unpack it"),
    (0, b"\x1f\x8b", "is a gzip archive", "unpack it"),
    (128, b"DICM", "is a DICOM file", CONVERT),
    (0, b"\x93NUMPY", "is a NumPy array", CONVERT),
)


def described_content(beginning: bytes) -> tuple[str, str]:
    """What a file seems to be whose format is not supported, and what to do about it.

    Args:
        beginning: its first 512 bytes.
    """
    if not beginning:
        return "is empty", REPLACE
    for start, text, content, fix in BEGINNINGS:
        if beginning[start : start + len(text)] == text:
            return content, fix
    text = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "is an SVG drawing", CONVERT
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, perhaps of a download that failed", "download the image again"
    if not any(beginning):
        return "holds only zeros, perhaps of a copy that was cut off", "copy the image again"
    return "is not an image of a supported format", REPLACE
