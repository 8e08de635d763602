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
import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from od_detr.collector import collector_paused
from od_detr.data.annotations import LARGEST
from od_detr.data.formats.columns.coco_records import SECTIONS, CocoTable

WINDOW = 1 << 20
LARGEST_WINDOW = 1 << 26
BETWEEN_RECORDS = re.compile(rb"\}\s*,\s*(?=\{)")
END_OF_LIST = re.compile(rb"\}\s*\](?=\s*(?:,\s*\"|\}))")
SPACE = b" \t\r\n"


ABSENT = -1  # of an optional number; an absent area is NaN

# The fields of records: an array of numbers, or a list of texts.
Columns = dict[str, Any]
_Bbox = tuple[float, float, float, float]  # x, y, width, height


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
    bbox: _Bbox
    id: int = ABSENT
    area: float = math.nan
    iscrowd: int = ABSENT


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
    parts: dict[str, list[Columns]] = {key: [] for key in SECTIONS}
    with file.open("rb", buffering=0) as opened, collector_paused():
        try:
            for key, records in _sections(_Reader(opened)):
                parts[key].extend(records)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            raise Unusual(str(error)) from error
    return _joined(parts)


def _sections(reader: _Reader) -> Iterator[tuple[str, Iterator[Columns]]]:
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
        """The next byte that is not a space, or nothing at the end of the file."""
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

    def records(self, kind: type[msgspec.Struct]) -> Iterator[Columns]:
        """Moves over a list of objects and yields their columns by the thousand."""
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
            columns = _columns_of(batch, kind)
            if _repeats_a_key(buffer, used + 1, columns):
                raise Unusual("a key may be there twice")
            yield columns


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


def _repeats_a_key(window: bytearray, end: int, columns: Columns) -> bool:
    """Whether some record may hold a field twice, which the decoder would not notice.

    Keys are distinguished by first letter and length, which is fast; where these do not add up, by
    counting the key itself. A key inside of a text counts as well, so the answer may be a false
    alarm, but never misses.
    """
    expected = {name: _present(column) for name, column in columns.items()}
    data = np.frombuffer(window, np.uint8, end)
    quotes = np.flatnonzero(data == ord('"'))
    if len(quotes) % 2 == 0 and window.find(b"\\", 0, end) < 0:
        opening, lengths = quotes[::2], np.minimum(np.diff(quotes)[::2], 64)
        kinds = data[opening + 1].astype(np.int64) * 65 + lengths
        counts = np.bincount(kinds, minlength=256 * 65)
        if all(counts[ord(name[0]) * 65 + len(name) + 1] == expected[name] for name in expected):
            return False
    return window.find(b"\\u", 0, end) >= 0 or any(
        window.count(b'"%s"' % name.encode(), 0, end) != number for name, number in expected.items()
    )


def _columns_of(batch: Sequence[Any], kind: type[msgspec.Struct]) -> Columns:
    """The fields of some records."""
    return {
        field.name: _column(map(attrgetter(field.name), batch), field.type, len(batch))
        for field in msgspec.structs.fields(kind)
    }


def _column(values: Iterator[Any], kind: Any, length: int) -> np.ndarray | list[Any]:
    if kind in (int, float):
        return np.fromiter(values, kind, length)
    if kind == _Bbox:
        return np.fromiter(chain.from_iterable(values), float, 4 * length).reshape(-1, 4)
    return list(values)


def _present(column: np.ndarray | list[Any]) -> int:
    """How many records have the field."""
    if isinstance(column, list):
        return len(column) - column.count(None)
    first = column.reshape(len(column), -1)[:, 0] if len(column) else column
    absent = np.isnan(first) if column.dtype == np.float64 else first == ABSENT
    return len(column) - int(np.count_nonzero(absent))


def _joined(parts: dict[str, list[Columns]]) -> CocoTable:
    images, boxes, categories = (
        _stacked(parts[key] or [_columns_of([], RECORD_OF[key])]) for key in SECTIONS
    )
    crowd, area = np.maximum(boxes["iscrowd"], 0), boxes["area"]
    corners = boxes["bbox"]
    if (crowd > 1).any() or (area < 0).any() or not (np.abs(corners) < LARGEST).all():
        raise Unusual("a box, iscrowd or area out of range")
    if not all(images["file_name"]) or not all(categories["name"]):
        raise Unusual("an image or category without a name")
    parents = [parent or "" for parent in categories["supercategory"]]
    return CocoTable(
        images["id"],
        images["file_name"],
        np.stack([images["height"], images["width"]], 1),
        boxes["image_id"],
        boxes["category_id"],
        corners,
        crowd.astype(np.bool_),
        area,
        np.maximum(boxes["id"], -1),
        np.arange(len(corners)),
        list(zip(categories["id"].tolist(), categories["name"], parents, strict=True)),
    )


def _stacked(parts: Sequence[Columns]) -> Columns:
    columns = zip(*(part.values() for part in parts), strict=True)
    return {
        name: list(chain.from_iterable(column))
        if isinstance(column[0], list)
        else np.concatenate(column)
        for name, column in zip(parts[0], columns, strict=True)
    }
