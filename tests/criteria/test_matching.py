"""The matching against scipy on every view, and its cost against a transcription, pair by pair."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from tests.objectives import transcription
from tests.objectives.transcription import Seen, Truth
from torch import Tensor
from torch.testing import assert_close

from od_detr.criteria.matching import MatchCost, Matches, match, pairwise_costs, solve
from od_detr.structures import (
    GroupOutput,
    Matched,
    Matching,
    Predictions,
    QueryGroup,
    QuerySet,
    Targets,
)

CLASSES = 3


def random_targets(counts: tuple[int, ...], seed: int = 0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    boxes = 0.1 + 0.4 * torch.rand(sum(counts), 4, generator=generator)
    return Targets(boxes, torch.randint(CLASSES, (sum(counts),), generator=generator), counts)


def random_output(
    images: int,
    queries: int,
    layers: int = 2,
    blocks: int = 1,
    empty: float = 0.0,
    seed: int = 0,
    name: str = "main",
) -> GroupOutput:
    """A group's predictions; a share `empty` of its slots is padding."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, images, blocks * queries, CLASSES, generator=generator)
    boxes = 0.1 + 0.4 * torch.rand(layers, images, blocks * queries, 4, generator=generator)
    padding = torch.rand(images, blocks * queries, generator=generator) < empty if empty else None
    queries_of = QuerySet(torch.zeros(images, blocks * queries, 1), boxes[0])
    return GroupOutput(
        QueryGroup(name, queries_of, blocks, padding=padding),
        (queries_of,),
        Predictions(logits, boxes),
    )


def seen(output: GroupOutput, targets: Targets) -> list[Seen]:
    """Every view of a group as the transcription sees it."""
    blocks, images = output.group.blocks, len(targets.counts)
    logits, boxes = (part.double() for part in output.views)
    holes = (
        None
        if output.group.padding is None
        else output.group.padding.unflatten(1, (blocks, -1)).tolist()
    )
    views = []
    for view, (z, b) in enumerate(zip(logits, boxes, strict=True)):
        image, block = view // blocks % images, view % blocks
        span = slice(targets.starts[image], targets.starts[image] + targets.counts[image])
        truth = Truth(targets.boxes[span].double().tolist(), targets.labels[span].tolist())
        views.append(Seen(z, b, truth, empty=holes[image][block] if holes else []))
    return views


def check_matching(matched: Matched, output: GroupOutput, targets: Targets) -> None:
    """Every view is a least-cost one-to-one matching of its own targets to unpadded queries."""
    costs, blocks, images = (
        matched.costs.numpy().astype(float),
        output.group.blocks,
        len(targets.counts),
    )
    triples = torch.stack(list(matched.matching), 1).numpy()
    for view, cost in enumerate(costs):
        image = view // blocks % images
        start, size = targets.starts[image], targets.counts[image]
        pairs = triples[triples[:, 0] == view]
        chosen, slots = pairs[:, 1], pairs[:, 2] - start
        usable = np.flatnonzero(np.isfinite(cost).all(0)) if size else np.arange(0)
        assert len(set(chosen)) == len(set(slots)) == len(pairs) == min(size, len(usable))
        assert set(chosen) <= set(usable)
        assert all(0 <= slot < size for slot in slots)
        rows, columns = linear_sum_assignment(cost[:size, usable]) if size else ([], [])
        assert cost[slots, chosen].sum() == pytest.approx(
            cost[:size, usable][rows, columns].sum(), rel=1e-6, abs=1e-6
        )


# ---- the solver ----------------------------------------------------------------------------------


@st.composite
def cost_cases(draw) -> tuple[np.ndarray, np.ndarray]:
    """Random, tied, or trained-like costs of several views.

    Some with padded queries, some without targets.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    views, most, queries = draw(st.integers(1, 5)), draw(st.integers(0, 7)), draw(st.integers(1, 8))
    kind = draw(st.sampled_from(["random", "tied", "trained"]))
    costs = rng.normal(size=(views, most, queries))
    if kind == "tied":
        costs = rng.integers(0, 3, costs.shape).astype(float)
    if kind == "trained":  # one query is far the cheapest of each target
        for view, slot in np.ndindex(views, most):
            costs[view, slot, rng.integers(queries) if rng.random() < 0.3 else slot % queries] -= 10
    if draw(st.booleans()):
        padded = rng.random((views, queries)) < 0.4
        costs = np.where(padded[:, None], np.inf, costs)
    return costs.astype(np.float32), rng.integers(0, most + 1, views)


@given(cost_cases())
@settings(max_examples=300, deadline=None)
def test_every_view_is_solved_as_scipy_solves_it(case) -> None:
    costs, counts = case
    chosen = solve(costs, counts)
    assert chosen.shape == costs.shape[:2]
    for cost, count, queries in zip(costs, counts, chosen, strict=True):
        assert (queries[count:] == -1).all()
        usable = np.flatnonzero(np.isfinite(cost).all(0)) if count else np.arange(0)
        slots = np.flatnonzero(queries >= 0)
        assert len(slots) == len(set(queries[slots])) == min(count, len(usable))
        assert set(queries[slots]) <= set(usable)
        rows, columns = linear_sum_assignment(cost[:count, usable])
        assert cost[slots, queries[slots]].sum() == pytest.approx(
            cost[:count, usable][rows, columns].sum(), abs=1e-4
        )


# ---- the cost ------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("eps", [0.0, 1e-6, 1e-2])
@pytest.mark.parametrize("kind", ["focal", "stable"])
def test_costs_are_the_formula_pair_by_pair(kind, eps, blocks) -> None:
    targets = random_targets((3, 0, 6))
    output = random_output(3, 4, blocks=blocks, empty=0.2 if blocks > 1 else 0.0)
    weights = (1.5, 4.0, 3.0)
    costs = pairwise_costs(output, targets, MatchCost(*weights, cost=kind, eps=eps))
    assert costs.shape == (2 * 3 * blocks, 6, 4)
    assert not costs.requires_grad
    views = seen(output, targets)
    assert len(views) == len(costs)
    for ours, view in zip(costs, views, strict=True):
        wanted = transcription.cost_matrix(view, eps, kind, weights)
        assert_close(
            ours[: len(wanted)], torch.tensor(wanted).view(-1, 4).float(), rtol=1e-4, atol=1e-4
        )


def test_the_stable_cost_measures_an_image_by_its_own_best_pair() -> None:
    """Neither the empty target slots of other images nor padded queries may be that best pair."""
    targets = random_targets((1, 3))
    output = random_output(2, 3, layers=1)
    output.predictions.boxes[:, 0] = torch.tensor([0.9, 0.9, 0.01, 0.01])  # far from its target
    alone = random_output(2, 3, layers=1)
    alone.predictions.boxes.copy_(output.predictions.boxes)
    only = Targets(targets.boxes[:1], targets.labels[:1], (1, 0))
    cost = MatchCost(cost="stable")
    assert_close(pairwise_costs(output, targets, cost)[0, :1], pairwise_costs(alone, only, cost)[0])


@pytest.mark.parametrize("kind", ["focal", "stable"])
def test_a_batch_without_targets_costs_nothing(kind) -> None:
    targets, output = random_targets((0, 0)), random_output(2, 4)
    assert pairwise_costs(output, targets, MatchCost(cost=kind)).shape == (4, 0, 4)
    matched = match([output], targets, MatchCost(cost=kind))["main"]
    assert [len(part) for part in matched.matching] == [0, 0, 0]


def broken(values: Tensor, number: float, seed: int) -> None:
    places = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)) < 0.1
    values[places] = number


@pytest.mark.parametrize("kind", ["focal", "stable"])
@pytest.mark.parametrize("part", ["logits", "boxes"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 3e38])
def test_broken_predictions_neither_crash_the_matching_nor_match_padding(
    number, part, kind
) -> None:
    for seed in range(5):
        targets = random_targets((3, 0, 5), seed)
        output = random_output(3, 7, blocks=2, empty=0.2, seed=seed)
        broken(getattr(output.predictions, part), number, seed)
        matched = match([output], targets, MatchCost(cost=kind))["main"]
        slots = output.group.padding.unflatten(1, (2, -1)).flatten(0, 1)
        padded = slots.repeat(output.num_layers, 1)[:, None].expand(matched.costs.shape)
        assert torch.equal(matched.costs.isposinf(), padded)
        check_matching(matched, output, targets)


@pytest.mark.parametrize("part", ["logits", "boxes"])
def test_a_sound_prediction_is_preferred_to_a_broken_one(part) -> None:
    targets, output = random_targets((2,)), random_output(1, 4, layers=1)
    getattr(output.predictions, part)[0, 0, 1] = math.nan
    chosen = match([output], targets, MatchCost())["main"].matching.query.tolist()
    assert 1 not in chosen
    assert len(chosen) == 2


# ---- whole steps ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_every_target_is_matched_once_at_least_cost_in_every_view(counts, blocks, seed) -> None:
    targets = random_targets(tuple(counts), seed)
    outputs = [
        random_output(len(counts), 7, seed=seed),
        random_output(len(counts), 3, blocks=blocks, empty=0.3, seed=seed, name="auxiliary"),
    ]
    matched = match(outputs, targets, MatchCost())
    for output in outputs:
        check_matching(matched[output.group.name], output, targets)
    dense = matched["main"].matching.queries_of_targets(2 * len(counts), len(targets))
    for view in range(2 * len(counts)):  # with enough queries
        assert torch.equal(dense[view] >= 0, targets.image == view % len(counts))


def test_many_groups_are_solved_from_one_copy(monkeypatch) -> None:
    """However many groups and layers, the solver is handed one flat tensor."""
    handed = []
    submit = Matches._solver.submit
    monkeypatch.setattr(
        Matches._solver,
        "submit",
        lambda *arguments: handed.append(arguments) or submit(*arguments),
    )
    targets = random_targets((3, 0, 6))
    outputs = [
        random_output(3, size, layers, blocks, seed=size, name=f"group of {size}")
        for size, layers, blocks in ((4, 2, 1), (7, 1, 3))
    ]
    matched = Matches(outputs, targets, MatchCost()).result()
    ((_, costs, *_),) = handed
    assert torch.equal(costs.wait(), torch.cat([m.costs.flatten() for m in matched.values()]))
    for output in outputs:
        check_matching(matched[output.group.name], output, targets)


def test_a_matching_known_by_construction_is_kept_and_an_unmatched_group_left_alone() -> None:
    targets, cost = random_targets((2, 1)), MatchCost()
    known = Matching(torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1]), torch.tensor([0, 1, 2]))
    given_, free, usual = (random_output(2, 4, layers=1, name=name) for name in "abc")
    given_ = replace(given_, group=replace(given_.group, matching=known))
    free = replace(free, group=replace(free.group, matched=False))
    matched = match([given_, free, usual], targets, cost)
    assert matched.keys() == {"a", "c"}
    assert matched["a"].matching is known
    assert matched["a"].costs is None
    check_matching(matched["c"], usual, targets)


def test_padded_targets_are_zero_boxes_behind_the_real_ones() -> None:
    targets = random_targets((2, 0, 3))
    boxes, labels = targets.padded
    assert boxes.shape == (3, 3, 4)
    assert labels.shape == (3, 3)
    for image, (start, size) in enumerate(zip(targets.starts, targets.counts, strict=True)):
        assert torch.equal(boxes[image, :size], targets.boxes[start : start + size])
        assert torch.equal(labels[image, :size], targets.labels[start : start + size])
        assert not boxes[image, size:].any()
        assert not labels[image, size:].any()
