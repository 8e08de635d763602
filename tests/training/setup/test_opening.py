"""Data with images that cannot be read stops a training before it begins, or is trained without."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.training.setup.opening import SKIPPED_SHOWN, open_data

Options = Callable[..., TrainOptions]


@pytest.fixture
def damaged(scenes: Path, tmp_path: Path) -> Path:
    """Of 12 training images one is missing, one is cut off and one is text; of 4 others one is."""
    folder = tmp_path / "damaged"
    shutil.copytree(scenes, folder)
    train, val = (sorted((folder / "images" / split).iterdir()) for split in ("train", "val"))
    train[0].unlink()
    train[1].write_bytes(train[1].read_bytes()[:200])
    train[2].write_text("no image")
    val[0].unlink()
    return folder


def test_an_unreadable_image_stops_a_training_and_the_line_names_the_way_out(
    options: Options, damaged: Path
) -> None:
    with pytest.raises(InputError, match="; or give --on-unreadable skip") as refused:
        open_data(options(data=str(damaged)))
    assert "\n" not in str(refused.value)


def test_unreadable_images_are_left_out_and_said(
    options: Options, damaged: Path, capsys: pytest.CaptureFixture
) -> None:
    train, val = open_data(options(data=str(damaged), on_unreadable="skip"))
    assert (len(train), len(val)) == (9, 3)
    assert all(train[image].image.shape[0] == 3 for image in range(9))
    said = [line for line in capsys.readouterr().out.splitlines() if "skipped: " in line]
    assert len(said) == 4


def test_many_skipped_images_are_counted_and_none_left_is_refused(
    options: Options, damaged: Path, capsys: pytest.CaptureFixture
) -> None:
    for file in damaged.rglob("*.png"):
        file.write_text("no image")
    with pytest.raises(InputError, match="no image can be read"):
        open_data(options(data=str(damaged), on_unreadable="skip"))
    said = capsys.readouterr().out
    assert said.count("skipped: ") == SKIPPED_SHOWN + 1
    assert f"skipped: {12 - SKIPPED_SHOWN} more images of" in said
