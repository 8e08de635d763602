"""The fast and the careful reader agree, and the cache is never wrong."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from od_detr.data import cache
from od_detr.data.formats.coco import annotations_of, read_coco
from od_detr.data.formats.columns import coco_stream
from od_detr.data.formats.columns.coco_records import table_of
from od_detr.data.formats.columns.coco_stream import Unusual, streamed_table


@pytest.mark.parametrize("indent", [None, 2])
def test_windows_of_any_size_give_the_columns_of_the_whole(
    indent: int | None, sound: dict, tmp_path: Path, monkeypatch
) -> None:
    sound["info"] = {"note": "}, { in a text"}
    sound["annotations"] *= 20
    file = tmp_path / "x.json"
    file.write_text(json.dumps(sound, indent=indent))
    expected = annotations_of(table_of(sound, file)[0], file)
    for window in (300, 1000, 1 << 20):
        monkeypatch.setattr(coco_stream, "WINDOW", window)
        found = annotations_of(streamed_table(file), file)
        for field in (each.name for each in dataclasses.fields(found)):
            mine, theirs = getattr(found, field), getattr(expected, field)
            same = np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
            assert same or list(mine) == list(theirs)


def test_a_repeated_key_is_left_to_the_careful_reader(sound: dict, tmp_path: Path) -> None:
    text = json.dumps(sound).replace('"iscrowd": 0', '"iscrowd": 0, "image_id": 20')
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(Unusual):
        streamed_table(tmp_path / "x.json")


def test_a_cached_file_is_read_the_same_and_damage_is_repaired(
    sound: dict, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("OD_DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST", 0)
    file = tmp_path / "x.json"
    file.write_text(json.dumps(sound))
    first, again = read_coco(file), read_coco(file)
    assert again.boxes_xywh.tolist() == first.boxes_xywh.tolist()
    assert list(again.names) == ["a.png", "b.jpg", "c.png"]
    (entry,) = [each for each in (tmp_path / "cache/annotations").iterdir() if not each.suffix]
    damaged = bytearray(entry.read_bytes())
    damaged[-70] ^= 1
    entry.write_bytes(damaged)
    assert read_coco(file).boxes_xywh.tolist() == first.boxes_xywh.tolist()
    sound["annotations"].pop()
    file.write_text(json.dumps(sound))
    assert len(read_coco(file).labels) == 2


def test_an_entry_of_an_older_version_is_made_again(
    sound: dict, tmp_path: Path, monkeypatch
) -> None:
    """Also for a file whose digest is remembered because it has not changed for long."""
    monkeypatch.setenv("OD_DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST", 0)
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1.0)
    file = tmp_path / "x.json"
    file.write_text(json.dumps(sound))

    def entries() -> int:
        read_coco(file)
        return sum(not each.suffix for each in (tmp_path / "cache/annotations").iterdir())

    assert (entries(), entries()) == (1, 1)
    monkeypatch.setattr(cache, "VERSION", "of tomorrow")
    assert entries() == 2


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "tmp1.part", tmp_path / "tmp2.part"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.make_room(tmp_path, 100)
    assert [*tmp_path.iterdir()] == [new]
