"""Data with images that cannot be read stops a training before it begins, or is trained without."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from od_detr.data.scenes import render_scenes
from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.ranks import Ranks
from od_detr.training.plan import assembled, planned
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
        open_data(options(data=str(damaged)), Ranks())
    assert "\n" not in str(refused.value)


def test_unreadable_images_are_left_out_and_said(
    options: Options, damaged: Path, capsys: pytest.CaptureFixture
) -> None:
    train, val = open_data(options(data=str(damaged), on_unreadable="skip"), Ranks())
    assert (len(train), len(val)) == (9, 3)
    assert all(train[image].image.shape[0] == 3 for image in range(9))
    said = [line for line in capsys.readouterr().out.splitlines() if "skipped: " in line]
    assert len(said) == 4


def test_validation_images_that_are_trained_on_are_counted(
    options: Options, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    open_data(options(), Ranks())
    assert "are trained on, too" not in capsys.readouterr().out
    folder = tmp_path / "shared"
    shutil.copytree(scenes, folder)
    images = json.loads((folder / "train.json").read_text())
    for image in images["images"]:
        image["file_name"] = f"train/{image['file_name']}"
    (folder / "val.json").write_text(json.dumps(images))
    (folder / "train.json").write_text(json.dumps(images))
    open_data(options(data=str(folder)), Ranks())
    assert "val: 12 of 12 images are trained on, too: AP" in capsys.readouterr().out


@pytest.fixture
def forty(tmp_path: Path) -> Path:
    """Of 40 training images one is missing, and one is not of the size that is written."""
    folder = tmp_path / "forty"
    render_scenes(folder, 40, 4, 64, seed=0)
    files = sorted((folder / "images" / "train").iterdir())
    files[3].unlink()
    Image.new("RGB", (48, 64)).save(files[4])
    return folder


def test_a_few_unusable_images_of_many_are_left_out_unasked_and_named(
    options: Options, forty: Path, capsys: pytest.CaptureFixture
) -> None:
    train, val = open_data(options(data=str(forty)), Ranks())
    assert (len(train), len(val)) == (38, 4)
    said = [line for line in capsys.readouterr().out.splitlines() if "skipped: " in line]
    assert len(said) == 2
    assert "its entry says width 64" in said[1]
    with pytest.raises(InputError, match="; or give --on-unreadable skip"):
        open_data(options(data=str(forty), on_unreadable="stop"), Ranks())


def test_the_way_out_is_named_for_an_image_of_another_size_too(
    options: Options, forty: Path
) -> None:
    (missing,) = {f"{number:06d}.png" for number in range(40)} - {
        file.name for file in (forty / "images" / "train").iterdir()
    }
    Image.new("RGB", (64, 64)).save(forty / "images" / "train" / missing)
    with pytest.raises(InputError, match=r"says width 64.*; or give --on-unreadable skip"):
        open_data(options(data=str(forty), on_unreadable="stop"), Ranks())


def test_more_than_a_few_stop_the_run(options: Options, forty: Path) -> None:
    next((forty / "images" / "train").iterdir()).unlink()
    with pytest.raises(InputError, match="; or give --on-unreadable skip"):
        open_data(options(data=str(forty)), Ranks())


def test_several_processes_leave_nothing_out_unasked(options: Options, forty: Path) -> None:
    """They need not read all headers again to agree on what is left out."""
    with pytest.raises(InputError, match="; or give --on-unreadable skip"):
        assembled(planned(options(data=str(forty), devices=2)))


def test_many_skipped_images_are_counted_and_none_left_is_refused(
    options: Options, damaged: Path, capsys: pytest.CaptureFixture
) -> None:
    for file in damaged.rglob("*.png"):
        file.write_text("no image")
    with pytest.raises(InputError, match="no image can be used"):
        open_data(options(data=str(damaged), on_unreadable="skip"), Ranks())
    said = capsys.readouterr().out
    assert said.count("skipped: ") == SKIPPED_SHOWN + 1
    assert f"skipped: {12 - SKIPPED_SHOWN} more images of" in said


def test_a_way_to_divide_a_set_that_is_divided_is_said_to_have_no_effect(
    options: Options, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    undivided = tmp_path / "undivided"
    shutil.copytree(scenes, undivided)
    (undivided / "val.json").unlink()
    for data, effect in ((scenes, False), (undivided, True)):
        open_data(options(data=str(data), val_fraction=0.4, group="(.*)"), Ranks())
        said = capsys.readouterr().out
        assert ("--val-fraction and --group has no effect" not in said) is effect, said
