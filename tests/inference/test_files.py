"""Every picture is drawn under a name of its own."""

from __future__ import annotations

from pathlib import Path

from od_detr.inference.sources import unique_stems


def test_drawn_copies_of_one_name_are_numbered_and_no_number_is_taken_twice() -> None:
    files = ["x/a.png", "a-2.jpg", "y/a.jpg", "b.jpg", "z/a.bmp", "c/a-2.png"]
    wanted = ["a", "a-2", "a-3", "b", "a-4", "a-2-2"]
    assert unique_stems([Path(file) for file in files]) == wanted


def test_a_great_many_files_of_one_name_are_told_apart() -> None:
    """As a recorder writes them, a folder for each shot.

    To try every number for every file would never end.
    """
    names = unique_stems([Path(str(folder), "frame.png") for folder in range(20_000)])
    assert len(set(names)) == 20_000
    assert names[-1] == "frame-20000"
