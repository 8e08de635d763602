"""The records of a COCO file of any size, decoded window by window into flat columns.

COCO 2017's training annotations have 448 MB, nearly all of it polygons that a detector does not
need. A window of one megabyte is cut where one object of the list ends and the next begins, and
decoded by a typed decoder that skips unknown fields. A cut is only a guess at `}, {`, which also
occurs inside of texts and nested lists. The decoder decides: a window that ends anywhere but
between two objects is not a list of objects, and decoding fails.

Whatever is unusual (a field of another type, a key that may be there twice, a cut that fails) ends
in `Unusual`, and the file is read whole by `coco_records`, which knows how to report it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from od_detr.data.formats.coco_records import SECTIONS, CocoTable

WINDOW = 1 << 20
LARGEST_WINDOW = 1 << 26
BETWEEN_RECORDS = re.compile(rb"\}\s*,\s*(?=\{)")
END_OF_LIST = re.compile(rb"\}\s*\](?=\s*(?:,\s*\"|\}))")
SPACE = b" \t\r\n"


class Unusual(Exception):
    """The file needs the careful reader."""


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    height: int
    width: int


class _Box(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    id: int | None = None
    area: float | None = None
    iscrowd: int | None = None


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str
    supercategory: str | None = None


RECORD_OF = {"images": _Image, "annotations": _Box, "categories": _Category}


def streamed_table(file: Path) -> CocoTable:
    """The columns of a COCO file in memory that does not grow with its polygons.

    Raises:
        Unusual: anything but well-formed records of the expected types.
        OSError: the file cannot be read.
    """
    parts: dict[str, list[Any]] = {key: [] for key in SECTIONS}
    with file.open("rb", buffering=0) as opened:
        try:
            for key, records in _sections(_Reader(opened)):
                for batch in records:
                    parts[key].append(COLUMNS[key](batch))
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            raise Unusual(str(error)) from error
    return _joined(parts)


def _sections(reader: _Reader) -> Iterator[tuple[str, Iterator[list[Any]]]]:
    """The known lists of the top object, each to be consumed before the next."""
    seen = set()
    reader.take(b"{")
    while True:
        key = reader.value()
        reader.take(b":")
        if not isinstance(key, str) or key in seen:
            raise Unusual(f"key {key!r}")
        seen.add(key)
        if key in SECTIONS:
            yield key, reader.records(RECORD_OF[key])
        else:
            reader.value()
        if reader.take(b",}") == b"}":
            break
    if reader.peek() or set(SECTIONS) - seen:
        raise Unusual("more than one object, or lists missing")


class _Reader:
    """A position in a JSON file, and the ways to move it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.position = file, 0
        if self._read(3) == b"\xef\xbb\xbf":
            self.position = 3

    def _read(self, size: int) -> bytes:
        self.file.seek(self.position)
        return self.file.read(size)

    def peek(self) -> bytes:
        """The next byte that is no space, or nothing at the end of the file."""
        while window := self._read(1 << 12):
            rest = window.lstrip(SPACE)
            self.position += len(window) - len(rest)
            if rest:
                return rest[:1]
        return b""

    def take(self, expected: bytes) -> bytes:
        """Moves over one of the expected bytes."""
        found = self.peek()
        if not found or found not in expected:
            raise Unusual(f"{found!r} at byte {self.position}")
        self.position += 1
        return found

    def value(self) -> Any:
        """Moves over a small value, such as a key or `info`."""
        self.peek()
        size = 1 << 12
        while size <= LARGEST_WINDOW:
            window = self._read(size)
            text = window.decode("utf-8", "ignore")
            try:
                value, end = json.JSONDecoder().raw_decode(text)
            except json.JSONDecodeError:
                if len(window) < size:
                    raise
                size *= 8
                continue
            self.position += len(text[:end].encode())
            return value
        raise Unusual("a very long value")

    def records(self, kind: type[msgspec.Struct]) -> Iterator[list[Any]]:
        """Moves over a list of objects and yields them by the thousand."""
        decoder = msgspec.json.Decoder(list[kind])
        self.take(b"[")
        if self.peek() == b"]":
            self.position += 1
            return
        size, buffer, last = WINDOW, bytearray(), False
        while not last:
            if len(buffer) != size + 2:
                buffer = bytearray(size + 2)
                buffer[:1] = b"["
            self.file.seek(self.position)
            count = self.file.readinto(  # type: ignore[attr-defined]
                memoryview(buffer)[1 : 1 + size]
            )
            found = _decoded(decoder, buffer, count + 1)
            if found is None:
                if count < size or size >= LARGEST_WINDOW:
                    raise Unusual("no end of a record")
                size *= 8
                continue
            batch, used, last = found
            self.position += used
            if _repeats_a_key(bytes(memoryview(buffer)[: used + 1]), batch, kind):
                raise Unusual("a key may be there twice")
            yield batch


def _decoded(
    decoder: msgspec.json.Decoder[list[Any]], buffer: bytearray, end: int
) -> tuple[list[Any], int, bool] | None:
    """The records at the start of a window, the bytes used, and whether the list ends there."""
    between = _last_between(buffer, end)
    if between is not None:
        stop, following = between
        kept, buffer[stop] = buffer[stop], ord("]")
        try:
            return decoder.decode(memoryview(buffer)[: stop + 1]), following - 1, False
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            buffer[stop] = kept  # the cut lies behind the end of the list, or inside of a record
    for tries, match in enumerate(END_OF_LIST.finditer(buffer, 1, end)):
        if tries == 8:
            break
        try:
            return decoder.decode(memoryview(buffer)[: match.end()]), match.end() - 1, True
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            continue
    return None


def _last_between(buffer: bytearray, end: int) -> tuple[int, int] | None:
    """Where the last record but one of the window ends, and where the next begins."""
    for tail in (1 << 12, 1 << 16, end):
        matches = list(BETWEEN_RECORDS.finditer(buffer, max(1, end - tail), end))
        if matches:
            return matches[-1].start() + 1, matches[-1].end()
    return None


def _repeats_a_key(window: bytes, batch: Sequence[Any], kind: type[msgspec.Struct]) -> bool:
    """Whether some record may hold a field twice, which the decoder would not notice.

    Keys are distinguished by first letter and length, which is fast; where these do not add up, by
    counting the key itself. A key inside of a text counts as well, so the answer may be a false
    alarm, but never misses.
    """
    fields = kind.__struct_fields__
    optional = fields[len(fields) - len(kind.__struct_defaults__) :]
    absent = {name: list(map(attrgetter(name), batch)).count(None) for name in optional}
    expected = {name: len(batch) - absent.get(name, 0) for name in fields}
    data = np.frombuffer(window, np.uint8)
    quotes = np.flatnonzero(data == ord('"'))
    if len(quotes) % 2 == 0 and b"\\" not in window:
        opening, lengths = quotes[::2], np.minimum(np.diff(quotes)[::2], 64)
        kinds = data[opening + 1].astype(np.int64) * 65 + lengths
        counts = np.bincount(kinds, minlength=256 * 65)
        if all(counts[ord(name[0]) * 65 + len(name) + 1] == expected[name] for name in fields):
            return False
    return b"\\u" in window or any(
        window.count(b'"%s"' % name.encode()) != expected[name] for name in fields
    )


def _image_columns(batch: list[_Image]) -> tuple[np.ndarray, list[str], np.ndarray]:
    sizes = np.array([(image.height, image.width) for image in batch], dtype=np.int64)
    names = [image.file_name for image in batch]
    return np.array([image.id for image in batch], dtype=np.int64), names, sizes


def _box_columns(batch: list[_Box]) -> tuple[np.ndarray, ...]:
    boxes = np.fromiter(
        chain.from_iterable(map(attrgetter("bbox"), batch)), np.float64, 4 * len(batch)
    ).reshape(-1, 4)
    crowd = np.array([box.iscrowd or 0 for box in batch], dtype=np.int64)
    area = np.array([box.area for box in batch], dtype=np.float64)  # None becomes NaN
    if not (np.abs(boxes) < 1e300).all() or ((crowd != 0) & (crowd != 1)).any() or (area < 0).any():
        raise Unusual("a box, iscrowd or area out of range")
    ids = [-1 if box.id is None or box.id < 0 else box.id for box in batch]
    return (
        np.array([box.image_id for box in batch], dtype=np.int64),
        np.array([box.category_id for box in batch], dtype=np.int64),
        boxes,
        crowd.astype(np.bool_),
        area,
        np.array(ids, dtype=np.int64),
    )


def _category_columns(batch: list[_Category]) -> list[tuple[int, str, str]]:
    if any(not category.name for category in batch):
        raise Unusual("a category without a name")
    if any(abs(category.id) >= 2**63 for category in batch):
        raise Unusual("a category id of more than 64 bits")
    return [(each.id, each.name, each.supercategory or "") for each in batch]


COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "images": _image_columns,
    "annotations": _box_columns,
    "categories": _category_columns,
}


def _joined(parts: dict[str, list[Any]]) -> CocoTable:
    empty = _image_columns([]), _box_columns([])
    images = list(zip(*(parts["images"] or [empty[0]]), strict=True))
    boxes = [
        np.concatenate(column).reshape(-1, *column[-1].shape[1:])
        for column in zip(*(parts["annotations"] or [empty[1]]), strict=True)
    ]
    names = [name for batch in images[1] for name in batch]
    if not all(names):
        raise Unusual("an image without a file name")
    sizes = np.concatenate(images[2]).reshape(-1, 2)
    return CocoTable(
        np.concatenate(images[0]),
        names,
        sizes,
        boxes[0],
        boxes[1],
        boxes[2].reshape(-1, 4),
        boxes[3],
        boxes[4],
        boxes[5],
        np.arange(len(boxes[0])),
        [category for batch in parts["categories"] for category in batch],
    )
