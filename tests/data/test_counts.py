"""A count and its noun agree."""

from __future__ import annotations

import pytest

from od_detr.data.counts import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "box", "1 box"),
        (3, "box", "3 boxes"),
        (2, "validation image", "2 validation images"),
    ],
)
def test_the_noun_agrees_with_the_number(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
