"""Files that appear whole or not at all, locks between processes, and a user's JSON."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from od_detr.errors import InputError

LARGEST_TEXT = 64 * 2**20  # bytes of a text file that is read whole


def read_json(file: Path, kind: str, fix: str, most: int = LARGEST_TEXT) -> dict[str, Any]:
    """Reads a JSON file that holds one object.

    Args:
        file: The file, UTF-8 with or without a byte order mark.
        kind: What the messages call it, such as "COCO annotation file".
        fix: How the messages end, such as "export it again".
        most: Largest size in bytes.

    Raises:
        InputError: The file cannot be read, is empty, is not JSON or holds no object. The message
            gives line and column where they are known.
    """
    return parse_json(read_text(file, kind, most), file, kind, fix)


def read_text(file: Path, kind: str, most: int = LARGEST_TEXT) -> str:
    """The text of a file, UTF-8 with or without a byte order mark.

    Args:
        file: The file.
        kind: What the messages call it, such as "YAML file of options".
        most: Largest size in bytes.

    Raises:
        InputError: The file cannot be read, is a device or a pipe, is too large, or is not text.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise InputError(f"{file}: is not a regular file; give a {kind}")
        if status.st_size > most:
            raise InputError(f"{file}: has {status.st_size} bytes, more than any {kind}; give one")
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a {kind}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from error


def parse_json(text: str, file: Path, kind: str, fix: str) -> dict[str, Any]:
    """Like `read_json`, for text that was found in `file`."""
    if not text.strip():
        raise InputError(f"{file}: the file is empty; {fix}")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise InputError(f"{file}: {place}: {error.msg}; correct the JSON or {fix}") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error}); {fix}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{file}: holds a {type(content).__name__}, but a {kind} is a JSON object; {fix}"
        )
    return content


def as_text(path: str | Path) -> str:
    r"""A file's name as text that any file can hold.

    Bytes that are not UTF-8, as old archives have them, become `\xe9` and the like, so that the
    names of two files stay different.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def atomic_write(path: Path, older: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path in the same directory; on exit it is flushed and renamed to `path`.

    Readers see the old file or the new one, never a part. On an error the old one stays. The new
    file has the permissions of any file that the user creates, whatever the writer gave it.

    Args:
        path: The file to write.
        older: Where the file that is replaced is kept, in the same directory; None to drop it.
    """
    partial = _partial(path)
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        if older is not None and path.exists():
            also_named(path, older)
        os.replace(partial, path)
        _flush_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def also_named(path: Path, other: Path) -> None:
    """Gives the file `path` a second name in the same directory, instead of a file of that name.

    Where the file system has no hard links, `path` is renamed.
    """
    link = _partial(other)
    try:
        os.link(path, link)
    except OSError:
        os.replace(path, other)
        return
    try:
        os.replace(link, other)
        _flush_directory(path.parent)
    finally:
        link.unlink(missing_ok=True)  # still there where both names were of one file before


def make_directory(directory: Path) -> None:
    """Makes a directory, with those above it, that a loss of power does not undo."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _flush_directory(each.parent)


def clear_unfinished(path: Path) -> None:
    """Removes the temporary files that killed processes left of `atomic_write(path)`."""
    for partial in path.parent.glob(f"{escape(path.name)}.*.part"):
        owner = partial.name.removeprefix(f"{path.name}.").removesuffix(".part")
        if owner.isdigit() and partial.is_file() and not _is_running(int(owner)):
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, option: str = "--output") -> Iterator[None]:
    """Reports a full disk, a missing permission or a vanished folder as the user's, in one line.

    Args:
        path: What is written inside the block.
        option: What the user can give to write elsewhere.

    Raises:
        InputError: The system refused; the message gives its reason.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{path}: cannot be written ({reason}); free some space, restore the folder, or give "
            f"another {option}"
        ) from error


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock file `path`; the system releases it when the process ends in any way.

    Raises:
        InputError: With the text `refusal`, when another process holds the lock, or where the file
            cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with writing(path):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:  # an OSError, too
            raise InputError(refusal) from error
    try:
        yield
    finally:
        lock.release()


def _partial(path: Path) -> Path:
    """The temporary name under which this process writes `path`."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def _flush_directory(directory: Path) -> None:
    """Makes a rename durable; only POSIX systems can open a directory."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_running(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    if os.name != "posix":
        return process == os.getpid()  # elsewhere os.kill would end the process
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs, for another user
        return True
    return True
