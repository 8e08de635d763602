"""Folders are walked with those that are linked."""

from __future__ import annotations

from pathlib import Path

from od_detr.data.walking import walked


def test_linked_folders_are_walked_once_and_in_no_circle(tmp_path: Path) -> None:
    train, other = tmp_path / "images" / "train", tmp_path / "disk" / "camera"
    for folder in (train / "z", tmp_path / "images" / "val", other):
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    (other / "again").symlink_to(other, target_is_directory=True)
    (train / "above").symlink_to(tmp_path / "images", target_is_directory=True)
    (train / "a").symlink_to(train / "z", target_is_directory=True)
    for name in ("camera", "same"):
        (train / name).symlink_to(other, target_is_directory=True)
    found = [Path(place, name) for place, _, names in walked(train) for name in names]
    assert [path.relative_to(train).as_posix() for path in found] == ["z/a.png", "camera/a.png"]
