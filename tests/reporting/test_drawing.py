"""Pictures: boxes where the detections are, labels inside, inputs untouched."""

from __future__ import annotations

import re

import numpy as np
import pytest
import supervision
from PIL import Image

from od_detr.reporting.boxed import colour
from od_detr.reporting.drawing import COLOURS, TEXT_COLOURS, contact_sheet, draw

CLASSES = ["circle", "square"]


def detections(
    *boxes: tuple[float, float, float, float], scores: bool = True
) -> supervision.Detections:
    return supervision.Detections(
        xyxy=np.array(boxes, dtype=np.float32),
        confidence=np.linspace(0.9, 0.1, len(boxes), dtype=np.float32) if scores else None,
        class_id=np.arange(len(boxes)) % 2,
    )


def colours_at(picture: Image.Image, *points: tuple[int, int]) -> list[tuple[int, ...]]:
    return [picture.getpixel(point) for point in points]


def test_no_class_has_the_red_of_a_box_at_fault() -> None:
    hues = [int(re.findall(r"\d+", colour(label))[0]) for label in range(1300)]
    assert all(30 < hue < 330 for hue in hues)
    assert len(set(hues[:12])) == 12


def test_a_small_image_is_enlarged_and_its_boxes_with_it() -> None:
    picture = draw(Image.new("RGB", (128, 96)), detections((32, 24, 96, 72)), CLASSES)
    assert picture.size == (512, 384)
    edges = colours_at(picture, (128, 200), (384, 200), (256, 288), (256, 96))
    assert edges == [COLOURS.by_idx(0).as_rgb()] * 4
    assert picture.getpixel((256, 200)) == (0, 0, 0)


def test_a_large_image_keeps_its_size() -> None:
    assert draw(Image.new("RGB", (700, 900)), detections((10, 50, 90, 99)), CLASSES).size == (
        700,
        900,
    )


def test_every_class_has_its_colour() -> None:
    picture = draw(
        Image.new("RGB", (600, 600)), detections((50, 100, 200, 300), (300, 100, 500, 300)), CLASSES
    )
    assert colours_at(picture, (50, 200), (300, 200)) == [
        COLOURS.by_idx(0).as_rgb(),
        COLOURS.by_idx(1).as_rgb(),
    ]


def test_arrays_and_images_of_any_mode_are_drawn_alike_and_stay_as_they_are() -> None:
    array = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    before, found = array.copy(), detections((5, 5, 40, 40), (20, 20, 70, 50))
    boxes = found.xyxy.copy()
    picture = draw(array, found, CLASSES)
    assert picture == draw(Image.fromarray(array), found, CLASSES)
    assert (array == before).all()
    assert (found.xyxy == boxes).all()
    for mode in ("L", "RGBA", "P"):
        assert draw(Image.fromarray(array).convert(mode), found, CLASSES).mode == "RGB"


@pytest.mark.slow
def test_the_label_of_a_box_at_the_border_lies_inside_the_image() -> None:
    """As much text is painted as for a box in the middle, where nothing can be cut off."""

    def text_pixels(x: float, y: float) -> int:
        picture = draw(
            Image.new("RGB", (1600, 1600), "gray"), detections((x, y, x + 500, y + 500)), CLASSES
        )
        return int((np.asarray(picture) == TEXT_COLOURS.by_idx(0).as_rgb()).all(-1).sum())

    middle = text_pixels(500, 500)
    assert middle > 50
    for x, y in ((0, 0), (1550, 0), (1550, 300), (-30, 200), (200, -30)):
        assert text_pixels(x, y) == middle


def test_ground_truth_without_scores_and_images_without_detections_are_drawn() -> None:
    image = Image.new("RGB", (128, 128))
    assert draw(image, detections((5, 5, 40, 40), scores=False), CLASSES).size == (512, 512)
    nothing = draw(image, supervision.Detections.empty(), CLASSES)
    assert nothing.getcolors() == [(512 * 512, (0, 0, 0))]


def test_a_contact_sheet_shows_every_image_in_reading_order() -> None:
    shades = ["red", "lime", "blue"]
    sheet = contact_sheet([Image.new("RGB", (40, 30), shade) for shade in shades], columns=2, gap=4)
    assert sheet.size == (2 * 44 + 4, 2 * 34 + 4)
    assert colours_at(sheet, (20, 15), (64, 15), (20, 50), (64, 50)) == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]
    titled = contact_sheet([Image.new("RGB", (200, 90))] * 2, columns=2, titles=("a", "b"))
    above = np.asarray(titled.convert("L"))[: titled.height - 90 - 8]
    left, right = np.array_split(above, 2, axis=1)
    assert left.min() < 128
    assert right.min() < 128
    assert (above[:4] == 255).all()
    assert contact_sheet([Image.new("L", (9, 9))], columns=4, gap=0).size == (9, 9)
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])
