"""The augmentation is DETR's, at any size."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from od_detr.boxes import cxcywh_to_xyxy
from od_detr.data.transforms import Plan, Sample, Transform, apply_to_boxes, apply_to_image, fitted
from od_detr.errors import InputError

SIZES = st.tuples(st.integers(1, 400), st.integers(1, 400))
UNIT = st.floats(0, 1, width=32)


@st.composite
def samples(draw) -> Sample:
    height, width = draw(SIZES)
    corners = torch.tensor(draw(st.lists(st.tuples(UNIT, UNIT, UNIT, UNIT), max_size=5))).reshape(
        -1, 2, 2
    )
    low, high = corners.amin(1), corners.amax(1)
    boxes = torch.cat([(low + high) / 2, high - low], 1)
    image = torch.full((3, height, width), 7, dtype=torch.uint8)
    return Sample(image, boxes, torch.arange(len(boxes)), 1, (height, width))


AUGMENTS = st.sampled_from(["none", "flip", "detr", "strong"])


@settings(deadline=None, max_examples=80)
@given(samples(), AUGMENTS, st.integers(16, 200), st.integers())
def test_boxes_stay_inside_the_image_under_any_augmentation(
    sample: Sample, augment: str, image_size: int, seed: int
) -> None:
    after = Transform(image_size, augment)(sample, Random(seed))
    corners = cxcywh_to_xyxy(after.boxes)
    assert corners.min() >= -1e-6 if len(corners) else True
    assert (corners <= 1 + 1e-6).all()
    assert len(after.boxes) == len(after.labels) <= len(sample.labels)
    assert after.size == sample.size
    assert after.image.dtype == torch.uint8
    assert max(after.image.shape[1:]) <= round(1333 * image_size / 800)


@settings(deadline=None)
@given(samples())
def test_flipping_twice_is_the_identity(sample: Sample) -> None:
    height, width = sample.size
    plan = Plan(True, (height, width))
    noise = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    assert torch.equal(apply_to_image(plan, apply_to_image(plan, noise)), noise)
    boxes, kept = apply_to_boxes(plan, apply_to_boxes(plan, sample.boxes)[0])
    assert kept.all()
    torch.testing.assert_close(boxes, sample.boxes)


def detr_size(width: int, height: int, size: int, max_size: int) -> tuple[int, int]:
    """The rule of DETR's test and training resize, after its description."""
    shorter, longer = float(min(width, height)), float(max(width, height))
    if longer / shorter * size > max_size:
        size = round(max_size * shorter / longer)
    return (
        (int(size * height / width), size) if width < height else (size, int(size * width / height))
    )


@given(st.integers(100, 2000), st.integers(100, 2000), st.sampled_from(range(480, 801, 32)))
def test_sizes_are_those_of_detr(width: int, height: int, short: int) -> None:
    theirs = detr_size(width, height, short, 1333)
    mine = fitted(height, width, short, 1333)
    assert mine == tuple(min(side, 1333) for side in theirs)


def drawn(image_size: int, count: int = 4000, height: int = 480, width: int = 640) -> list[Plan]:
    transform, rng = Transform(image_size, "detr"), Random(0)
    return [transform.plan(height, width, rng) for _ in range(count)]


@pytest.mark.parametrize("image_size", [800, 400, 128])
def test_the_policy_is_detrs_and_scales_with_the_image_size(image_size: int) -> None:
    def scaled(pixels: int) -> int:
        return round(pixels * image_size / 800)

    plans = drawn(image_size)
    whole = [plan for plan in plans if plan.crop is None]
    cropped = [plan for plan in plans if plan.crop is not None]
    assert sum(plan.flip for plan in plans) == pytest.approx(2000, abs=150)
    assert len(whole) == pytest.approx(2000, abs=150)
    assert {min(plan.size) for plan in whole} == {scaled(short) for short in range(480, 801, 32)}
    assert {min(plan.before_crop) for plan in cropped} == {scaled(400), scaled(500), scaled(600)}
    assert all(
        plan.before_crop == fitted(480, 640, min(plan.before_crop), 10**9) for plan in cropped
    )
    for side in (2, 3):
        lengths = [plan.crop[side] for plan in cropped]
        assert min(lengths) == scaled(384)
        assert max(lengths) == scaled(600)
    for plan in cropped:
        top, left, height, width = plan.crop
        assert 0 <= top <= plan.before_crop[0] - height
        assert 0 <= left <= plan.before_crop[1] - width
        assert plan.size == fitted(height, width, min(plan.size), scaled(1333))


def test_a_wide_image_is_bound_by_its_long_side() -> None:
    assert {plan.size[1] for plan in drawn(800, 200, 200, 2000) if plan.crop is None} <= {
        1330,
        1333,
        1325,
        1320,
    }
    assert Transform(800).plan(200, 2000, Random(0)).size == (133, 1330)


@pytest.mark.parametrize(("height", "width"), [(1, 20000), (20000, 1), (1, 1)])
def test_the_thinnest_picture_never_explodes(height: int, width: int) -> None:
    for plan in drawn(800, 200, height, width):
        assert min(plan.size) >= 1
        assert plan.before_crop is None or max(plan.before_crop) <= 6400


def test_evaluation_and_flip_resize_the_short_side_to_the_image_size() -> None:
    for augment in ("none", "flip"):
        plans = {Transform(256, augment).plan(480, 640, Random(seed)) for seed in range(40)}
        assert {(plan.size, plan.crop) for plan in plans} == {((256, 341), None)}
        assert len(plans) == (2 if augment == "flip" else 1)


def test_pixels_and_boxes_are_those_of_torchvision_step_by_step() -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    corners = torch.tensor([[10.0, 20, 60, 70], [100, 5, 128, 30], [0, 0, 8, 8], [2, 40, 120, 96]])
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    boxes = boxes / torch.tensor([128, 96]).repeat(2)
    plan = Plan(True, (130, 104), (60, 80), (11, 23, 45, 36))

    theirs = (
        tv_tensors.Image(image),
        tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(96, 128)),
    )
    theirs = map(functional.horizontal_flip, theirs)
    theirs = (functional.resize(value, [60, 80], antialias=True) for value in theirs)
    theirs = (functional.crop(value, *plan.crop) for value in theirs)
    pixels, found = (functional.resize(value, [130, 104], antialias=True) for value in theirs)
    found = functional.clamp_bounding_boxes(found)
    solid = ((found[:, 2:] - found[:, :2]) > 0).all(1)

    mine, kept = apply_to_boxes(plan, boxes)
    assert torch.equal(kept, solid)
    assert 0 < kept.sum() < 4
    torch.testing.assert_close(
        cxcywh_to_xyxy(mine) * torch.tensor([104, 130]).repeat(2),
        found[solid].as_subclass(torch.Tensor),
    )
    assert (
        apply_to_image(plan, image).int() - pixels.as_subclass(torch.Tensor).int()
    ).abs().max() <= 1


def test_a_box_that_only_touches_the_window_is_dropped_with_its_label() -> None:
    boxes = torch.tensor([[0.15, 0.5, 0.3, 1.0], [0.65, 0.5, 0.7, 1.0]])  # they meet at 0.3
    plan = Plan(False, (70, 70), (100, 100), (15, 30, 70, 70))
    mine, kept = apply_to_boxes(plan, boxes)
    assert kept.tolist() == [False, True]
    torch.testing.assert_close(mine, torch.tensor([[0.5, 0.5, 1.0, 1.0]]))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match=r"image size 4 .*at least 16"):
        Transform(4)
