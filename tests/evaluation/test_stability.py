"""Laws of matching instability and consistency, and a brute-force transcription of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from od_detr.evaluation.stability import MatchingRecord, agreement, consistency, instability
from od_detr.structures import Matching, Targets


def random_matching(
    rng: np.random.Generator, images: int, queries: int, counts: list[int]
) -> np.ndarray:
    """A one-to-one matching of every target: (images, queries), -1 unmatched."""
    dense = np.full((images, queries), -1)
    for image, count in enumerate(counts):
        dense[image, rng.permutation(queries)[:count]] = np.arange(count)
    return dense


def as_matching(dense: np.ndarray) -> Matching:
    image, query = np.nonzero(dense >= 0)
    return Matching(*(torch.from_numpy(values) for values in (image, query, dense[image, query])))


@st.composite
def pairs(draw) -> tuple[np.ndarray, np.ndarray, int]:
    """Two matchings of the same images, and the number of their targets."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, queries = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    counts = [int(rng.integers(0, queries + 1)) for _ in range(images)]
    first, second = (random_matching(rng, images, queries, counts) for _ in range(2))
    kept = rng.random(images) < 0.3
    second[kept] = first[kept]
    return first, second, sum(counts)


@given(pairs())
@settings(max_examples=200, deadline=None)
def test_the_metrics_are_their_definitions_counted_one_by_one(case) -> None:
    first, second, targets = case
    images, queries = first.shape
    changed = same_query = either = both = 0
    for image in range(images):
        for query in range(queries):
            before, after = first[image, query], second[image, query]
            changed += before != after
            either += before >= 0 or after >= 0
            both += before == after >= 0
        for target in range(first[image].max() + 1):
            same_query += first[image].tolist().index(target) == second[image].tolist().index(
                target
            )
    assert instability(first, second) == changed / images
    assert consistency(first, second) == (same_query / targets if targets else 1)
    assert agreement(first, second) == (both / either if either else 1)


@given(pairs())
@settings(max_examples=100, deadline=None)
def test_matchings_lists_and_tensors_say_what_arrays_say(case) -> None:
    first, second, _ = case
    for metric in (instability, consistency, agreement):
        expected = metric(first, second)
        assert metric(first.tolist(), second.tolist()) == expected
        assert metric(torch.tensor(first, dtype=torch.int16), torch.tensor(second)) == expected
        options = {"images": len(first)} if metric is instability else {}
        assert metric(as_matching(first), as_matching(second), **options) == expected


@given(pairs())
@settings(max_examples=100, deadline=None)
def test_instability_never_exceeds_two_a_target_and_the_metrics_are_symmetric(case) -> None:
    first, second, targets = case
    assert instability(first, second) * len(first) <= 2 * targets
    for metric in (instability, consistency, agreement):
        assert metric(first, second) == metric(second, first)
        assert metric(first, second) >= 0
    assert agreement(first, second) <= consistency(first, second) <= 1


def test_nothing_changed_is_no_instability_and_full_consistency() -> None:
    dense = random_matching(np.random.default_rng(0), 3, 8, [2, 0, 8])
    assert instability(dense, dense) == 0
    assert consistency(dense, dense) == agreement(dense, dense) == 1


def test_two_queries_that_exchange_their_targets_count_two() -> None:
    assert instability([[0, 1, -1, 2]], [[1, 0, -1, 2]]) == 2


def test_a_target_that_moves_to_an_unmatched_query_counts_two() -> None:
    assert instability([[0, 1, -1, 2]], [[0, -1, 1, 2]]) == 2
    assert instability([[0, -1], [0, -1]], [[-1, 0], [0, -1]]) == 1  # a mean over the images


def test_the_jaccard_reading_follows_from_the_other_where_no_query_changes_its_target() -> None:
    rng = np.random.default_rng(1)
    for moved in range(5):
        first = random_matching(rng, 1, 12, [5])
        second = first.copy()
        free, taken = np.nonzero(first[0] < 0)[0], np.nonzero(first[0] >= 0)[0]
        second[0, free[:moved]], second[0, taken[:moved]] = first[0, taken[:moved]], -1
        fraction = consistency(first, second)
        assert fraction == (5 - moved) / 5
        assert agreement(first, second) == pytest.approx(fraction / (2 - fraction))


def test_images_without_a_match_count_where_matchings_are_told_of_them() -> None:
    empty = Matching(*(torch.zeros(0, dtype=torch.long) for _ in range(3)))
    before, after = as_matching(np.array([[0, -1]])), as_matching(np.array([[-1, 0]]))
    assert instability(before, after) == 2
    assert instability(before, after, images=4) == 0.5
    assert instability(empty, empty) == instability(empty, empty, images=5) == 0
    assert instability(before, empty) == 1
    assert consistency(before, empty) == 0
    assert consistency(empty, empty) == 1


def test_what_cannot_be_compared_is_refused() -> None:
    matching = as_matching(np.array([[0], [0]]))
    for first, second, options, named in [
        ([[0, -1]], [[0]], {}, r"\(1, 2\) and \(1, 1\)"),
        ([0, 1], [0, 1], {}, "integers"),
        ([[0.5]], [[0.5]], {}, "integers"),
        ([[0]], [[0]], {"images": 2}, "images=2"),
        (matching, matching, {"images": 1}, "images=1"),
        (matching, [[0], [0]], {}, "only be compared with a Matching"),
    ]:
        with pytest.raises(ValueError, match=named):
            instability(first, second, **options)


def recorded(assignments: np.ndarray, order, tokens: np.ndarray | None = None) -> MatchingRecord:
    """A record of (layers, images, queries), images in the given order, ids with gaps."""
    record = MatchingRecord()
    for image in order:
        own = None if tokens is None else torch.from_numpy(tokens[image])
        record.add(
            10 * int(image) + 7, torch.from_numpy(assignments[:, image]).to(torch.int16), own
        )
    return record


@pytest.fixture
def passes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    counts = [3, 0, 5, 1]
    return tuple(np.stack([random_matching(rng, 4, 6, counts) for _ in range(3)]) for _ in range(2))


def test_a_record_agrees_with_the_arrays_layer_by_layer_in_any_order_of_images(passes) -> None:
    before, after = passes
    rng = np.random.default_rng(3)
    for _ in range(3):
        first, second = recorded(before, rng.permutation(4)), recorded(after, rng.permutation(4))
        for metric in (instability, consistency, agreement):
            expected = [metric(before[layer], after[layer]) for layer in range(3)]
            assert getattr(second, metric.__name__)(first) == pytest.approx(expected)


def test_a_record_filled_by_the_batch_equals_one_filled_by_the_image(passes) -> None:
    before, after = passes
    counts = (3, 0, 5, 1)
    targets = Targets(torch.zeros(9, 4), torch.zeros(9, dtype=torch.long), counts)
    starts = np.array(targets.starts)[None, :, None]
    in_batch = np.where(before >= 0, before + starts, -1).reshape(12, 6)
    tokens = np.random.default_rng(4).permuted(np.arange(24).reshape(1, 24).repeat(4, 0), axis=1)[
        :, :6
    ]
    for own in (None, tokens):
        by_batch = MatchingRecord()
        batch_tokens = None if own is None else torch.from_numpy(own)
        by_batch.add_batch((7, 17, 27, 37), as_matching(in_batch), targets, (3, 6), batch_tokens)
        by_image = recorded(before, range(4), own)
        other = recorded(after, range(4), own)
        assert by_batch.instability(by_image) == [0, 0, 0]
        assert by_batch.instability(other) == by_image.instability(other)


def test_queries_are_compared_by_token_where_their_index_is_a_rank(passes) -> None:
    before, _ = passes
    rng = np.random.default_rng(5)
    tokens = np.stack([rng.permutation(20)[:6] for _ in range(4)])
    ranks = np.stack([rng.permutation(6) for _ in range(4)])
    shuffled = np.stack([before[:, image, ranks[image]] for image in range(4)], 1)
    first = recorded(before, range(4), tokens)
    again = recorded(shuffled, range(4), np.take_along_axis(tokens, ranks, 1))
    assert again.instability(first) == [0, 0, 0]
    assert again.consistency(first) == [1, 1, 1]
    assert recorded(shuffled, range(4)).instability(recorded(before, range(4))) != [0, 0, 0]
    # With tokens that the other pass never chose, every match of either pass is a change.
    assert recorded(before, range(4), tokens + 20).instability(first) == [2 * 9 / 4] * 3


def test_a_record_survives_saving_and_goes_on(passes, tmp_path) -> None:
    before, after = passes
    record = recorded(before, [2, 0])
    torch.save(record.state_dict(), tmp_path / "record.pt")
    restored = MatchingRecord()
    restored.load_state_dict(torch.load(tmp_path / "record.pt", weights_only=True))
    restored.merge(recorded(before, [1, 3]))
    whole, other = recorded(before, range(4)), recorded(after, range(4))
    assert len(restored) == 4
    assert other.instability(restored) == other.instability(whole)
    assert other.consistency(restored) == other.consistency(whole)
    empty = MatchingRecord()
    empty.load_state_dict(MatchingRecord().state_dict())
    empty.merge(MatchingRecord())
    assert len(empty) == 0
    empty.merge(whole)
    assert empty.instability(whole) == [0, 0, 0]


def test_records_are_compared_over_the_images_they_share(passes) -> None:
    before, after = passes
    part = recorded(before, [0, 2])
    expected = [instability(before[layer][[0, 2]], after[layer][[0, 2]]) for layer in range(3)]
    assert (
        recorded(after, range(4)).instability(part)
        == expected
        == part.instability(recorded(after, range(4)))
    )
    part.add(7, torch.from_numpy(after[:, 0]))  # an image again replaces its earlier self
    assert len(part) == 2
    assert part.instability(recorded(after, [0])) == [0, 0, 0]


def test_records_that_cannot_be_compared_are_refused(passes) -> None:
    before, _ = passes
    with pytest.raises(ValueError, match="no image in common"):
        recorded(before, [0]).instability(recorded(before, [1]))
    with pytest.raises(ValueError, match=r"\(3, 6\) and \(2, 6\)"):
        recorded(before, [0]).consistency(recorded(before[:2], [0]))
    with pytest.raises(ValueError, match="do not fit"):
        recorded(before, [0]).add(1, torch.zeros(3, 5, dtype=torch.long))
