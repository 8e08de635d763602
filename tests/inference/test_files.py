"""Every picture is drawn under a name of its own."""

from __future__ import annotations

from pathlib import Path

from od_detr.inference.sources import drawn_names


def test_drawn_copies_of_one_name_are_numbered_and_no_number_is_taken_twice() -> None:
    files = ["x/a.png", "a-2.jpg", "y/a.jpg", "b.jpg", "z/a.bmp", "c/a-2.png"]
    wanted = ["a.jpg", "a-2.jpg", "a-3.jpg", "b.jpg", "a-4.jpg", "a-2-2.jpg"]
    assert drawn_names([Path(file) for file in files]) == wanted


def test_a_great_many_files_of_one_name_are_told_apart() -> None:
    """As a recorder writes them, a folder for each shot.

    To try every number for every file would never end.
    """
    names = drawn_names([Path(str(folder), "frame.png") for folder in range(20_000)])
    assert len(set(names)) == 20_000
    assert names[-1] == "frame-20000.jpg"
