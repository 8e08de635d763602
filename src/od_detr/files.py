"""Files: a user's JSON, read with the place of what is wrong; ours, written whole or not at all, or locked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO, Any

from od_detr.errors import InputError


def read_json(file: Path, kind: str, mend: str) -> dict[str, Any]:
    """The JSON object in a file; messages call it a `kind` and end with `mend` ("export it again").

    Raises:
        InputError: the file cannot be read, is empty, or holds no JSON object; with line and column where they are
            known.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a {kind}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8 JSON"
        ) from error
    if not text.strip():
        raise InputError(f"{file}: the file is empty; {mend}")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise InputError(f"{file}: {place}: {error.msg}; mend the JSON or {mend}") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{file}: the JSON cannot be read ({error}); {mend}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{file}: holds a {type(content).__name__}; a {kind} is an object, so {mend}"
        )
    return content


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, flushed to disk and renamed to it in the end.

    `path` appears whole or not at all, whatever happens meanwhile and whoever else writes it.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def clear_unfinished(path: Path) -> None:
    """Removes what killed processes left of a file that was to be `atomic_write`, and nothing else."""
    for partial in path.parent.glob(f"{escape(path.name)}.*.part"):
        owner = partial.name.removeprefix(f"{path.name}.").removesuffix(".part")
        if owner.isdigit() and partial.is_file():
            partial.unlink(missing_ok=True)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether this process alone has the lock file `path` meanwhile; it is free again when the process is gone.

    Where files cannot be locked (Windows) nobody is kept out.
    """
    with path.open("a") as file:
        yield _locked(file)


def _locked(file: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
