"""The headers of all images of a data set, cached by size and time of each file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import msgspec

from od_detr.data.cache import SETTLED_SECONDS, cache_folder, make_room, store
from od_detr.data.headers.header import Header, read_header

VERSION = "3"
WORTH_CACHING = 256  # images of one folder
THREADS = 8  # files are opened while others are waited for, which matters on a network
TOGETHER = 64  # files that a thread reads in a row

Stamp = tuple[int, int]  # bytes and time of the last change in nanoseconds
Known = dict[str, tuple[int, int, Header]]  # by file name: its stamp and its header


def read_headers(paths: Iterable[str]) -> list[Header]:
    """The header of each file, in their order; nothing is raised.

    Headers are kept in the user's cache directory and read again where size or time of a file
    differ. Files with a problem are read each time, as another Pillow may read them.

    Args:
        paths: image files, for instance `Annotations.paths`. "" gives an empty header.
    """
    files = list(paths)
    folders: dict[str, list[int]] = {}
    for index, path in enumerate(files):
        folders.setdefault(os.path.dirname(path), []).append(index)
    headers = [Header()] * len(files)
    for folder, indices in folders.items():
        found = _headers_in(folder, [os.path.basename(files[index]) for index in indices])
        for index, header in zip(indices, found, strict=True):
            headers[index] = header
    return headers


def _headers_in(folder: str, names: Sequence[str]) -> list[Header]:
    if len(names) < WORTH_CACHING:
        return _read(folder, names)
    entry = _entry(folder)
    known = _load(entry)
    stamps = [_stamp(os.path.join(folder, name)) for name in names]
    fresh = [
        stamp is None or name not in known or known[name][:2] != stamp
        for name, stamp in zip(names, stamps, strict=True)
    ]
    unknown = [name for name, is_fresh in zip(names, fresh, strict=True) if is_fresh]
    read = iter(_read(folder, unknown))
    headers = [
        next(read) if is_fresh else known[name][2]
        for name, is_fresh in zip(names, fresh, strict=True)
    ]
    settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    learnt = {
        name: (*stamp, header)
        for name, stamp, header, is_fresh in zip(names, stamps, headers, fresh, strict=True)
        if is_fresh and stamp is not None and stamp[1] < settled and not header.code
    }
    if learnt:
        _store(entry, known | learnt)
    return headers


def _read(folder: str, names: Sequence[str]) -> list[Header]:
    paths = [os.path.join(folder, name) if name else "" for name in names]
    with ThreadPoolExecutor(THREADS) as threads:
        portions = [paths[first : first + TOGETHER] for first in range(0, len(paths), TOGETHER)]
        return list(chain.from_iterable(threads.map(_read_some, portions)))


def _read_some(paths: Sequence[str]) -> list[Header]:
    return [read_header(path) if path else Header() for path in paths]


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _entry(folder: str) -> Path:
    name = f"{VERSION} {os.path.realpath(folder)}".encode("utf-8", "surrogateescape")
    return cache_folder() / "headers" / hashlib.sha256(name).hexdigest()[:40]


def _load(entry: Path) -> Known:
    """What is known of a folder: an entry begins with the digest of the rest of it."""
    with contextlib.suppress(OSError, RuntimeError, msgspec.MsgspecError):
        content = entry.read_bytes()
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            return msgspec.msgpack.decode(content[32:], type=Known)
    return {}


def _store(entry: Path, known: Known) -> None:
    """Writes an entry; where the cache cannot be written, headers are read again next time."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, ValueError):
        content = msgspec.msgpack.encode(known)
        entry.parent.mkdir(parents=True, exist_ok=True)
        make_room(entry.parent, len(content))
        store(entry, hashlib.sha256(content).digest(), content)
