"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from od_detr.errors import InputError


def refuse_taken(folder: Path, option: str) -> None:
    """Refuses to write to a folder that holds something.

    Args:
        folder: where a command will write.
        option: that names it, such as `--output`.

    Raises:
        InputError: it is neither absent nor an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{option} {folder}: is there already; give a new folder")
    refuse_unwritable(folder, option)


def refuse_unwritable(path: Path, option: str) -> None:
    """Refuses a path that cannot be made, before there is anything to write; makes nothing.

    Raises:
        InputError: naming what stands in the way.
    """
    above = next(each for each in path.absolute().parents if each.exists())
    if not above.is_dir():
        raise InputError(f"{option} {path}: {above} is a file; give another path")
    if not os.access(above, os.W_OK):
        raise InputError(f"{option} {path}: {above} may not be written; give another path")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder; on exit its content is `folder`, which is absent or empty before.

    On an error nothing is left of it. A folder that is there already stays the same folder: it may
    be another disk's, or the one that the user is in.
    """
    there = folder.exists()
    name = f"{'new' if there else folder.name}.{os.getpid()}.part"
    partial = folder / name if there else folder.with_name(name)
    partial.mkdir(parents=True)
    try:
        yield partial
        if there:
            for inner in partial.iterdir():
                os.replace(inner, folder / inner.name)
        else:
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
