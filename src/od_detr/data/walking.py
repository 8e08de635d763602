"""Walks through the folders of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def walked(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Like `os.walk`, also into folders that are linked, each real folder once.

    Links come last, so that a folder that is there itself keeps its own name. A link to a folder
    that `folder` lies in is not followed: it would lead to the images of other splits.
    """
    start = Path(os.path.realpath(folder))
    seen = {str(above) for above in start.parents}
    waiting = [str(folder)]
    while waiting:
        links = []
        for place, folders, names in os.walk(waiting.pop(0)):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            yield place, folders, names
            inner = (os.path.join(place, name) for name in sorted(folders))
            links += [path for path in inner if os.path.islink(path)]
        waiting += links
