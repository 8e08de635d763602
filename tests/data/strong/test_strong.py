"""`--augment strong` moves pixels and boxes alike, and is the same whenever it is asked."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from od_detr.boxes import cxcywh_to_xyxy
from od_detr.data.dataset import CocoDataset
from od_detr.data.sampling.composition import Composition, Draw
from od_detr.data.strong.mosaic import mosaic
from od_detr.data.strong.photometric import distorted
from od_detr.data.transforms import Sample, Transform

BLUR = 3  # pixels that a resize may smear an edge over, at most
SIZES = ((96, 128), (128, 80), (60, 60), (40, 150))


def planted(number: int) -> Sample:
    """A black image with one white rectangle where its box is."""
    rng, (height, width) = Random(number), SIZES[number % 4]
    tall, wide = rng.randint(12, height // 2), rng.randint(12, width // 2)
    top, left = rng.randint(0, height - tall), rng.randint(0, width - wide)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, top : top + tall, left : left + wide] = 255
    box = [(left + wide / 2) / width, (top + tall / 2) / height, wide / width, tall / height]
    return Sample(image, torch.tensor([box]), torch.tensor([number]), number, (height, width))


def assert_boxes_hold_the_white_pixels(sample: Sample) -> None:
    """White pixels are in a box, up to a resize's blur, and the middle of each box is white."""
    rows, columns = sample.image.shape[1:]
    white = sample.image.float().mean(0) > 0.75 * 255
    corners = cxcywh_to_xyxy(sample.boxes) * torch.tensor([columns, rows]).repeat(2)
    outside = white.clone()
    for left, top, right, bottom in corners.tolist():
        middle = int((top + bottom) / 2), int((left + right) / 2)
        if min(right - left, bottom - top) > 2 * BLUR:
            assert white[middle]
        window = slice(max(0, int(top) - BLUR), int(bottom) + BLUR)
        outside[window, max(0, int(left) - BLUR) : int(right) + BLUR] = False
    assert not outside.any()


@pytest.mark.parametrize("number", range(4))
def test_the_box_of_a_planted_rectangle_follows_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("od_detr.data.transforms.distorted", lambda image, rng: image)
    transform = Transform(96, "strong")
    single = planted(number)
    four = mosaic([planted(number + each) for each in range(4)], (96, 128))
    assert four.labels.tolist() == [number + each for each in range(4)]
    assert_boxes_hold_the_white_pixels(four)
    for seed in range(30):
        assert_boxes_hold_the_white_pixels(transform(single, Random(seed)))
        assert_boxes_hold_the_white_pixels(transform(four, Random(seed)))


def test_scales_vary_and_no_image_is_larger_than_in_evaluation() -> None:
    transform, rng = Transform(200, "strong"), Random(0)
    plans = [transform.plan(480, 640, rng) for _ in range(500)]
    shorts = [min(plan.before_crop or (0,)) for plan in plans]
    assert min(shorts) < 60
    assert max(shorts) > 390
    assert {max(plan.size) <= 266 and min(plan.size) <= 200 for plan in plans} == {True}


def test_colours_change_and_sizes_do_not() -> None:
    image = torch.randint(256, (3, 20, 30), dtype=torch.uint8)
    after = [distorted(image, Random(seed)) for seed in range(20)]
    assert {each.shape for each in after} == {image.shape}
    assert {each.dtype for each in after} == {torch.uint8}
    assert sum(not torch.equal(each, image) for each in after) > 15


def test_a_sample_is_a_function_of_seed_epoch_and_place(scenes: Path) -> None:
    def sample(seed: int, epoch: int, place: int) -> Sample:
        data = CocoDataset.from_folder(scenes, "train", Transform(64, "strong"), seed=seed)
        return data[Draw(epoch, place)]

    for place in range(6):
        one, same, later = sample(0, 1, place), sample(0, 1, place), sample(0, 2, place)
        assert torch.equal(one.image, same.image)
        assert torch.equal(one.boxes, same.boxes)
        assert torch.equal(one.labels, same.labels)
        assert not (later.image.shape == one.image.shape and torch.equal(later.image, one.image))


def test_the_others_of_a_mosaic_are_as_frequent_as_in_the_epochs(scenes: Path) -> None:
    """A share of 600 draws is within 5 standard errors: 5 * sqrt(0.75 * 0.25 / 600) = 0.09."""
    data = CocoDataset.from_folder(scenes, "train", Transform(32, "strong"))
    repeats = np.zeros(len(data))
    repeats[1], repeats[2] = 1.0, 3.0
    data.composition = Composition(repeats, np.zeros(len(data), dtype=bool))
    rng = Random(0)
    drawn = [data.composition.any_image(rng) for _ in range(600)]
    assert set(drawn) == {1, 2}
    assert abs(drawn.count(2) / 600 - 0.75) < 0.09
    labels = [data.decoded(place).labels.tolist() for place in (0, 1, 2)]
    for seed in range(8):
        rng = Random(seed)
        others = [labels[data.composition.any_image(rng)] for _ in range(3)]
        found = data.in_mosaic(data.decoded(0), Random(seed)).labels.tolist()
        assert found == sum(others, labels[0])


def test_a_mosaic_has_no_more_objects_than_allowed(scenes: Path) -> None:
    data = CocoDataset.from_folder(scenes, "train", Transform(64, "strong"))
    sample = data.decoded(0)
    data.most_in_mosaic = 100
    assert len(data.in_mosaic(sample, Random(0)).labels) > len(sample.labels)
    data.most_in_mosaic = len(sample.labels)
    assert data.in_mosaic(sample, Random(0)) is sample
