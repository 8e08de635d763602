"""Sources of every kind become pixels, and every picture is drawn under a name of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from od_detr.data.image_formats import IMAGE_SUFFIXES
from od_detr.data.images import read_image
from od_detr.errors import InputError
from od_detr.inference.sources import find_images, pixels_of, unique_stems


def test_a_folder_gives_every_image_that_training_reads(tmp_path: Path) -> None:
    for suffix in (*IMAGE_SUFFIXES, ".txt", ".mp4"):
        (tmp_path / f"a{suffix}").touch()
    found = find_images([str(tmp_path)])
    assert {file.suffix for file in found} == set(IMAGE_SUFFIXES)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_an_open_image_has_the_pixels_of_its_file(mode: str, tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64)
    image = Image.fromarray(grey.astype(np.uint16))
    if mode != "I;16":
        image = Image.fromarray((grey / 257).astype(np.uint8)).convert(mode)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(file)
    with Image.open(file) as opened:
        assert torch.equal(pixels_of(opened), read_image(file))


def test_an_open_image_of_unknown_range_is_refused() -> None:
    with pytest.raises(InputError, match="the PIL image: holds 32-bit floating point"):
        pixels_of(Image.fromarray(np.zeros((4, 4), np.float32)))


def test_images_in_a_linked_folder_are_found(tmp_path: Path) -> None:
    for folder in ("images", "disk"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    link = tmp_path / "images" / "linked"
    link.symlink_to(tmp_path / "disk", target_is_directory=True)
    found = find_images([str(tmp_path / "images")])
    assert found == [tmp_path / "images" / "a.png", link / "a.png"]


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
