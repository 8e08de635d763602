"""Counts as people write them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number and what it counts, such as "1 image", "4 images", "0 boxes" or "2 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x")) else "s"
    return f"{number} {noun}{ending}"
