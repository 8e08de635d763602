"""A run's checkpoint in two generations, `last.ckpt` and `previous.ckpt`.

A checkpoint is a zip archive as `torch.save` writes it. The archive's comment is the SHA-256 of
everything before it. A file and its digest therefore never belong to different saves, and one
rename replaces both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from od_detr.checkpoint_contents import what_is_wrong
from od_detr.errors import InputError, Interrupted, first_line
from od_detr.files import also_named, atomic_write
from od_detr.run_files import RunFiles

MARK = b"sha256:"
COMMENT_BYTES = len(MARK) + 64
NO_COMMENT = b"\0\0"  # how an archive without a comment ends: the length of the comment
CHUNK_BYTES = 1 << 20
WORTH_A_THREAD = 1 << 18  # bytes; handing fewer over takes about as long as hashing them


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        contents: what was saved, with tensors on the CPU.
        file: the generation it was read from.
        notice: one line for the user where it is not the newest, else empty.
    """

    contents: dict[str, Any]
    file: Path
    notice: str = ""


class DamagedError(Exception):
    """A checkpoint is not what was saved; the message says why."""


def save_checkpoint(contents: Mapping[str, Any], files: RunFiles) -> None:
    """Writes `last.ckpt`; the one before it becomes `previous.ckpt`.

    A kill at any moment leaves the old generation or the new one as `last.ckpt`, whole.

    Raises:
        InputError: the disk is full, or the file cannot be written for another reason.
    """
    try:
        with atomic_write(files.last, older=files.previous) as partial:
            _write(contents, partial)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        if isinstance(error.__context__, Interrupted | KeyboardInterrupt):  # and a stop during one
            raise error.__context__ from None
        raise InputError(
            f"{files.last}: cannot be written ({_reason(error)}); free some space or restore the "
            "folder, then --resume"
        ) from error


def load_checkpoint(files: RunFiles) -> Checkpoint:
    """The newest generation that is intact; code in it is never executed.

    Raises:
        InputError: there is none, all are damaged, or one may not be read.
    """
    damages: list[str] = []
    for file in (files.last, files.previous):
        if not file.is_file():
            continue
        try:
            contents = _read(file)
        except DamagedError as damage:
            damages.append(f"{file} {damage}")
            continue
        step = contents["global_step"]
        notice = f"{damages[0]}; {file.name} of step {step} is used instead" if damages else ""
        return Checkpoint(contents, file, notice)
    if damages:
        raise InputError(f"{'; '.join(damages)}; restore one, or start again with another --output")
    raise InputError(
        f"{files.last}: no such checkpoint; give the --output of a run that was started before"
    )


def restore_last(checkpoint: Checkpoint, files: RunFiles) -> None:
    """Lets `last.ckpt` be the generation that was read, so that the next save keeps it."""
    if checkpoint.file != files.last:
        also_named(checkpoint.file, files.last)


def _write(contents: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint whose comment is its digest."""
    with path.open("wb") as file, ThreadPoolExecutor(1) as thread:
        hashing = _Hashing(file, thread)
        with _without_crc32():
            torch.save(dict(contents), hashing)  # type: ignore[arg-type]
        file.seek(-len(NO_COMMENT), os.SEEK_END)
        file.write(COMMENT_BYTES.to_bytes(2, "little"))
        file.write(MARK + hashing.digest.hexdigest().encode())


def _read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint.

    Raises:
        DamagedError: it is not what was saved.
        InputError: the file may not be read, or is not a checkpoint of this package.
    """
    try:
        if not _is_intact(path):
            raise DamagedError("is damaged: its SHA-256 differs")
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedError:
        raise
    except PermissionError as error:
        raise InputError(f"{path}: {error.strerror}; change its permissions") from error
    except OSError as error:
        raise DamagedError(f"cannot be read ({error.strerror})") from error
    except Exception as error:  # torch.load raises half a dozen unrelated types
        raise DamagedError("holds something else than tensors and plain values") from error
    wrong = what_is_wrong(contents)
    if wrong:
        raise DamagedError(f"is not a checkpoint of this version ({wrong})")
    return contents


def _is_intact(path: Path) -> bool:
    """Whether a file ends with the digest of what is before it."""
    left = path.stat().st_size - COMMENT_BYTES - len(NO_COMMENT)
    if left < 0:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
        end = file.read()
    digest.update(NO_COMMENT)
    return end == COMMENT_BYTES.to_bytes(2, "little") + MARK + digest.hexdigest().encode()


class _Hashing:
    """A file to write to that keeps the digest of what was written.

    Long data is hashed in a thread while it is written.
    """

    def __init__(self, file: IO[bytes], thread: Executor) -> None:
        self.file, self.thread, self.digest = file, thread, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        if len(data) < WORTH_A_THREAD:
            self.digest.update(data)
            return self.file.write(data)
        hashed = self.thread.submit(self.digest.update, data)
        try:
            return self.file.write(data)
        finally:
            hashed.result()  # torch reuses the memory of `data`

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def _without_crc32() -> Iterator[None]:
    """The archive's own checksums cost twice the time of SHA-256, and `torch.load` ignores them."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _reason(error: BaseException) -> str:
    """What the system said, which torch hides behind an error of its own."""
    for each in (error, error.__context__):
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return first_line(error)
