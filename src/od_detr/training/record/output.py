"""Whether a run may be written into a directory."""

from __future__ import annotations

from pathlib import Path

from od_detr.data.folders import folder_of
from od_detr.errors import InputError
from od_detr.run_files import RunFiles


def check_output(files: RunFiles, data: Path) -> None:
    """Refuses an output that is not a folder of its own.

    Raises:
        InputError: it is a file, or the folder of the data.
    """
    where = files.directory
    there = next(each for each in (where, *where.absolute().parents) if each.exists())
    if not there.is_dir():
        which = "is" if there == where else f"{there} is"
        raise InputError(f"--output {where}: {which} a file; give a folder")
    if files.directory.resolve() == folder_of(data).resolve():
        raise InputError(
            f"--output {files.directory}: is the folder of --data; give a folder of its own"
        )


def check_free(files: RunFiles) -> None:
    """Refuses an output that a new run would overwrite.

    What a run left that was killed before its first save may be repeated.

    Raises:
        InputError: naming what is there.
    """
    if files.is_saved:
        raise InputError(
            f"{files.last}: a run is there already; continue it with --resume, or give another "
            "--output"
        )
    ours = [] if files.is_run else [files.config, files.metrics, files.tensorboard]
    for path in (files.best, *ours):
        if path.exists():
            raise InputError(
                f"{path}: exists, without a {files.last.name} to continue from; give another "
                "--output"
            )


def last_save(files: RunFiles) -> tuple[int, int] | None:
    """Which save `last.ckpt` is; None if there is none."""
    if not files.last.exists():
        return None
    found = files.last.stat()
    return found.st_ino, found.st_mtime_ns


def check_same_save(files: RunFiles, before: tuple[int, int] | None) -> None:
    """Refuses to go on from a save that another process has replaced since it was read.

    Args:
        files: the run's files.
        before: its `last_save` then.

    Raises:
        InputError: naming the file.
    """
    if last_save(files) != before:
        raise InputError(
            f"{files.last}: another process trained this run further meanwhile; start again with "
            "--resume"
        )
