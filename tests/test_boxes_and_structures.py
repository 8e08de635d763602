"""Boxes convert and overlap as torchvision says; the nouns keep what they hold in its place."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torchvision import ops

from od_detr.boxes import (
    cxcywh_to_xyxy,
    inverse_sigmoid,
    overlaps,
    paired_giou,
    paired_iou,
    xyxy_to_cxcywh,
)
from od_detr.structures import Matching, Predictions, QuerySet, Targets

seeds = st.integers(0, 2**32 - 1)


def random_boxes(count: int, seed: int, empty_share: float = 0.2) -> Tensor:
    """(cx, cy, w, h), some of them without width, height or either."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 4, generator=generator)
    boxes[:, 2:] *= torch.rand(count, 2, generator=generator) >= empty_share
    return boxes


# ---- boxes ---------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_conversions_invert(seed) -> None:
    boxes = random_boxes(20, seed)
    assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)
    assert_close(cxcywh_to_xyxy(boxes), ops.box_convert(boxes, "cxcywh", "xyxy"))
    assert_close(xyxy_to_cxcywh(boxes), ops.box_convert(boxes, "xyxy", "cxcywh"))


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_overlaps_agree_with_torchvision(seed) -> None:
    first, second = random_boxes(9, seed, 0.0), random_boxes(7, seed // 2, 0.0)
    corners = [ops.box_convert(boxes, "cxcywh", "xyxy") for boxes in (first, second)]
    assert_close(paired_iou(first[:, None], second[None]), ops.box_iou(*corners))
    assert_close(paired_giou(first[:, None], second[None]), ops.generalized_box_iou(*corners))
    pairs = (corners[0][:7], corners[1])
    assert_close(
        1 - paired_giou(first[:7], second),
        ops.generalized_box_iou_loss(*pairs),
        atol=1e-5,
        rtol=1e-4,
    )


@given(seeds, st.sampled_from([0.0, 1e-6]))
@settings(max_examples=50, deadline=None)
def test_overlaps_stay_in_their_range_whatever_the_boxes(seed, eps) -> None:
    boxes = random_boxes(12, seed, 0.5)
    iou, giou = overlaps(cxcywh_to_xyxy(boxes)[:, None], cxcywh_to_xyxy(boxes)[None], eps)
    assert iou.min() >= 0
    assert iou.max() <= 1 + 1e-6
    assert giou.min() >= -1 - 1e-6
    assert giou.max() <= 1 + 1e-6
    assert (giou <= iou + 1e-6).all()


def test_empty_boxes_overlap_by_nothing_and_never_by_nan() -> None:
    point, line, box = torch.tensor(
        [[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.3, 0.0], [0.5, 0.5, 0.3, 0.3]]
    )
    for empty in (point, line):
        for other in (point, line, box):
            assert paired_iou(empty, other) == 0
            assert paired_giou(empty, other).isfinite()
    assert paired_iou(box, box) == 1


def test_eps_is_added_to_the_areas_that_divide() -> None:
    first, second = torch.tensor([0.4, 0.4, 0.2, 0.2]), torch.tensor([0.5, 0.5, 0.2, 0.2])
    inter, union, hull, eps = 0.01, 0.07, 0.09, 0.01
    iou = inter / (union + eps)
    assert math.isclose(paired_iou(first, second, eps), iou, rel_tol=1e-5)
    assert math.isclose(
        paired_giou(first, second, eps), iou - (hull - union) / (hull + eps), rel_tol=1e-5
    )


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_inverse_sigmoid_inverts_and_is_bounded(eps) -> None:
    values = torch.linspace(eps, 1 - eps, 50)
    assert_close(inverse_sigmoid(values, eps).sigmoid(), values, atol=1e-6, rtol=1e-5)
    assert_close(inverse_sigmoid(values, eps), torch.logit(values), atol=1e-4, rtol=1e-4)
    outside = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0]), eps)
    assert_close(outside, math.log(1 / eps) * torch.tensor([-1.0, -1.0, 1.0, 1.0]))


# ---- structures ----------------------------------------------------------------------------------


def query_set(queries: int, position: bool, seed: int = 0) -> QuerySet:
    generator = torch.Generator().manual_seed(seed)
    content, positions = torch.rand(2, 2, queries, 6, generator=generator)
    return QuerySet(
        content, torch.rand(2, queries, 4, generator=generator), positions if position else None
    )


def parts(queries: QuerySet) -> list[Tensor]:
    return [
        part for part in (queries.content, queries.anchors, queries.position) if part is not None
    ]


@pytest.mark.parametrize("position", [True, False])
def test_query_sets_join_slice_and_gather_every_field_alike(position) -> None:
    first, second = query_set(3, position), query_set(4, position, 1)
    joined = QuerySet.cat([first, second])
    assert len(joined) == 7
    assert len(parts(joined)) == 2 + position
    for part, one, other in zip(parts(joined), parts(first), parts(second), strict=True):
        assert torch.equal(part, torch.cat([one, other], 1))
    for part, one in zip(parts(joined[:3]), parts(first), strict=True):
        assert torch.equal(part, one)
    index = torch.tensor([[6, 0, 0], [2, 5, 1]])
    for taken, part in zip(parts(joined.take(index)), parts(joined), strict=True):
        assert torch.equal(taken, torch.stack([part[image][index[image]] for image in range(2)]))


def test_query_sets_with_and_without_a_position_are_never_joined() -> None:
    with pytest.raises(ValueError, match="position"):
        QuerySet.cat([query_set(3, True), query_set(3, False)])


@pytest.mark.parametrize("position", [True, False])
def test_a_detached_query_set_has_no_gradient_in_any_field(position) -> None:
    queries = query_set(3, position)
    for part in parts(queries):
        part.requires_grad_()
    assert not any(part.requires_grad for part in parts(queries.detach()))


@st.composite
def one_to_one(draw) -> tuple[Matching, int, int, int]:
    views, queries, targets = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 6)),
        draw(st.integers(0, 6)),
    )
    rows = []
    for view in range(views):
        size = draw(st.integers(0, min(queries, targets)))
        chosen = (
            draw(st.permutations(range(queries)))[:size],
            draw(st.permutations(range(targets)))[:size],
        )
        rows += [(view, query, target) for query, target in zip(*chosen, strict=True)]
    triples = torch.tensor(rows, dtype=torch.long).view(-1, 3)
    return Matching(*triples.unbind(1)), views, queries, targets


@given(one_to_one())
@settings(max_examples=50, deadline=None)
def test_dense_forms_of_a_matching_say_the_same_pairs(case) -> None:
    matching, views, queries, targets = case
    triples = set(zip(*(part.tolist() for part in matching), strict=True))
    by_query = matching.targets_of_queries(views, queries)
    by_target = matching.queries_of_targets(views, targets)
    assert triples == {
        (*place, by_query[tuple(place)].item()) for place in (by_query >= 0).nonzero().tolist()
    }
    assert triples == {
        (v, by_target[v, t].item(), t) for v, t in (by_target >= 0).nonzero().tolist()
    }


def test_views_count_layers_then_images_then_blocks() -> None:
    layers, images, blocks, slots = 3, 2, 4, 5
    numbers = torch.arange(layers * images * blocks * slots, dtype=torch.float32)
    numbers = numbers.view(layers, images, blocks * slots, 1)
    views = Predictions(numbers.expand(-1, -1, -1, 7), numbers.expand(-1, -1, -1, 4)).views(blocks)
    assert views.logits.shape == (layers * images * blocks, slots, 7)
    assert views.boxes.shape[-1] == 4
    for layer in range(layers):
        for image in range(images):
            for block in range(blocks):
                seen = views.boxes[(layer * images + image) * blocks + block, :, 0]
                assert torch.equal(
                    seen, numbers[layer, image, block * slots : (block + 1) * slots, 0]
                )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_targets_know_their_image_and_their_place_in_it(counts) -> None:
    targets = Targets(
        torch.rand(sum(counts), 4), torch.zeros(sum(counts), dtype=torch.long), tuple(counts)
    )
    expected = [(image, slot) for image, count in enumerate(counts) for slot in range(count)]
    assert list(zip(targets.image.tolist(), targets.slot.tolist(), strict=True)) == expected
    assert (len(targets), targets.most) == (len(expected), max(counts))
    assert [
        expected[start] for start, count in zip(targets.starts, counts, strict=True) if count
    ] == [(image, 0) for image, count in enumerate(counts) if count]
