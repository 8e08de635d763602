"""Decoded annotations kept in the user's cache directory, to be mapped into memory by the next
process.

An entry is named by the digest of the annotation file's content and of this reader's version, so it
can never be stale. It is written to a temporary name and renamed, and carries a digest of itself:
an entry that is damaged, unwritable or of another version is ignored and made again. Nothing is
ever written into the user's data folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from od_detr.data.annotations import Annotations, Categories, Strings
from od_detr.data.findings import Finding

VERSION = "2"
SMALLEST = 1 << 20  # bytes of an annotation file that is worth keeping
MOST_BYTES = 4 << 30  # of all entries together
ABANDONED = 86_400.0  # seconds since something was written to a file that has no name yet
PATIENCE = 600.0  # seconds to wait for another process that decodes the same file
ALIGNMENT = 64
# A file changed less than this before it was seen may change again without a new time stamp.
SETTLED_SECONDS = 2.0
STRINGS = ("names", "paths")
ARRAYS = (
    *("image_ids", "sizes", "starts", "boxes_xywh", "labels"),
    *("crowd", "area", "record_ids", "places"),
)


def cache_folder() -> Path:
    """`$OD_DETR_CACHE`, else `od-detr` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("OD_DETR_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and os.path.isabs(base) else Path.home() / ".cache") / "od-detr"


def cached(file: Path, decode: Callable[[Path], Annotations]) -> Annotations:
    """The annotations of a file: mapped from the cache, or decoded and put there.

    Of several processes that open a file at once, one decodes it and the others wait.
    """
    try:
        folder = cache_folder() / "annotations"
        if file.stat().st_size < SMALLEST:
            return decode(file)
        folder.mkdir(parents=True, exist_ok=True)
        key = _key(file, folder)
    except (OSError, RuntimeError):
        return decode(file)
    entry = folder / key
    with _alone(entry.with_suffix(".lock")):
        found = _load(entry, file)
        if found is None:
            made = decode(file)
            # Decoding again also drops the memory that decoding took.
            found = _load(entry, file) if _store(entry, made, file) else None
            found = made if found is None else found
    return found


def _key(file: Path, folder: Path) -> str:
    """The digest of a file's content, remembered while size, times and inode stay the same."""
    status = file.stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    stamp = "-".join(map(str, (VERSION, status.st_dev, status.st_ino, status.st_size, *times)))
    memory = folder / f"{hashlib.sha256(stamp.encode()).hexdigest()[:40]}.digest"
    with contextlib.suppress(OSError, ValueError):
        known = memory.read_text("ascii")
        if len(known) == 64 and int(known, 16) >= 0:
            return known
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    digest.update(VERSION.encode())
    if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
        store(memory, digest.hexdigest().encode("ascii"))
    return digest.hexdigest()


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Holds a lock where the file system has locks; otherwise each process decodes for itself."""
    holder = FileLock(lock)
    try:
        holder.acquire(timeout=PATIENCE)
    except (OSError, Timeout, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        holder.release()


def _store(entry: Path, annotations: Annotations, file: Path) -> bool:
    """Writes an entry; False where the cache cannot be written."""
    arrays = {name: getattr(annotations, name) for name in ARRAYS}
    arrays |= {
        f"{name}.{part}": getattr(getattr(annotations, name), part)
        for name in STRINGS
        for part in ("data", "ends")
    }
    layout, offset = {}, 0
    for name, array in arrays.items():
        layout[name] = (array.dtype.str, array.shape, offset)
        offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    header = {
        "format": annotations.format,
        "categories": asdict(annotations.categories),
        "findings": [asdict(each) for each in annotations.findings],
        "source": str(file),
        "layout": layout,
    }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 40) % ALIGNMENT)
    parts: list[bytes] = [len(text).to_bytes(8, "little"), text]
    for array in arrays.values():
        parts += [array.tobytes()]
        parts += [bytes(-array.nbytes % ALIGNMENT)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    make_room(entry.parent, offset)
    return store(entry, digest.digest(), *parts)


def store(target: Path, *parts: bytes) -> bool:
    """Writes a file whole or not at all; False where it cannot be written."""
    partial = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file:
            partial = file.name
            for part in parts:
                file.write(part)
        os.replace(partial, target)
    except OSError:
        if partial is not None:
            with contextlib.suppress(OSError):
                os.unlink(partial)
        return False
    return True


def make_room(folder: Path, size: int) -> None:
    """Removes the entries that were used longest ago, so that all stay within `MOST_BYTES`.

    What a process that was killed has left of an entry goes first.
    """
    with contextlib.suppress(OSError):
        for partial in folder.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):  # it has its name by now
                if time.time() - partial.stat().st_mtime > ABANDONED:
                    partial.unlink()
        entries = [path for path in folder.iterdir() if not path.suffix]
        entries.sort(key=lambda path: path.stat().st_mtime)
        total = size + sum(path.stat().st_size for path in entries)
        while entries and total > MOST_BYTES:
            oldest = entries.pop(0)
            total -= oldest.stat().st_size
            oldest.unlink()


def _load(entry: Path, file: Path) -> Annotations | None:
    """An entry, checked and mapped into memory; None where there is none that is sound."""
    try:
        with entry.open("rb") as opened:
            expected = opened.read(32)
            if hashlib.file_digest(opened, "sha256").digest() != expected:
                return None
            opened.seek(32)
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        os.utime(entry)
        data = np.memmap(entry, np.uint8, "r")
    except (OSError, ValueError):
        return None
    return _mapped(data[40 + length :], header, file)


def _mapped(data: np.ndarray, header: dict[str, Any], file: Path) -> Annotations:
    def array(name: str) -> np.ndarray:
        kind, shape, offset = header["layout"][name]
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        flat = np.asarray(data[offset : offset + size])
        return flat.view(kind).reshape(shape)

    texts = {name: Strings(array(f"{name}.data"), array(f"{name}.ends")) for name in STRINGS}
    findings = [Finding(**each) for each in header["findings"]]
    here = str(file)
    fields: dict[str, Any] = {name: array(name) for name in ARRAYS} | texts
    categories = header["categories"]
    return Annotations(
        file=file,
        format=header["format"],
        categories=Categories(*(tuple(categories[part]) for part in ("ids", "names", "parents"))),
        findings=tuple(
            replace(each, source=here) if each.source == header["source"] else each
            for each in findings
        ),
        **fields,
    )
