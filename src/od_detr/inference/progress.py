"""A bar for work on many images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def with_bar(items: Iterable[T], total: int | None = None) -> Iterator[T]:
    """The items, with a bar on stderr that counts them. Without a terminal nothing is shown.

    Args:
        items: images or frames.
        total: how many there are, if it is known.
    """
    from tqdm.auto import tqdm

    yield from tqdm(items, total=total, unit="image", leave=False, disable=None)
