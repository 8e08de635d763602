"""The dump that a run leaves when it stops on values that are not finite."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from od_detr.errors import InputError, NonFiniteError
from od_detr.files import atomic_write, read_json
from od_detr.run_files import RunFiles


@dataclass(frozen=True)
class Dump:
    """What a run leaves when it stops on values that are not finite.

    Attributes:
        step: number of the optimizer step to look at, counted from 1.
        images: ids of its images, on all ranks.
        reason: the line with which the run stopped.
    """

    step: int
    images: tuple[int, ...]
    reason: str


@contextmanager
def dumping(files: RunFiles, writes: bool) -> Iterator[None]:
    """Writes a dump into the run when training stops on values that are not finite.

    Raises:
        NonFiniteError: the one that came, with the dump in its message.
    """
    try:
        yield
    except NonFiniteError as error:
        if not writes or error.step is None:
            raise
        dump = Dump(error.step, error.images, str(error))
        try:
            with atomic_write(files.dump) as partial:
                partial.write_text(json.dumps(asdict(dump), indent=2) + "\n")
        except OSError as full:
            raise NonFiniteError(
                f"{error}; {files.dump} could not be written ({full.strerror})"
            ) from error
        raise NonFiniteError(
            f"{error}; find the cause with od-detr train --replay {files.dump}"
        ) from error


def read_dump(file: Path) -> Dump:
    """The content of a dump.

    Raises:
        InputError: the file cannot be read or is not a dump.
    """
    content = read_json(file, "dump of a training step", "give the nonfinite.json of a run")
    step, images = content.get("step"), content.get("images")
    if (
        type(step) is not int
        or step < 1
        or not isinstance(images, list)
        or any(type(each) is not int for each in images)
    ):
        raise InputError(
            f"{file}: 'step' or 'images' is missing or wrong; give the nonfinite.json of a run"
        )
    return Dump(step, tuple(images), str(content.get("reason", "")))
