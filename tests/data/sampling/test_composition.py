"""Repeats and backgrounds follow their rule on average, and an epoch is shared as without them."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from od_detr.data.loading.batching import BatchSampler
from od_detr.data.sampling.composition import Composition, rounded

SOME = Composition(
    np.array([1.0, 2.5, 1.25, 1.25, 3.0, 0.5, 0.5, 0.5, 0.5]), np.array([False] * 5 + [True] * 4)
)


@settings(deadline=None)
@given(st.lists(st.floats(0, 4), min_size=1, max_size=30), st.integers(0, 99))
def test_each_number_is_rounded_up_or_down_and_the_sum_never_varies(
    expected: list[float], seed: int
) -> None:
    numbers = rounded(np.array(expected), Random(seed))
    assert (np.floor(expected) <= numbers).all()
    assert (numbers <= np.ceil(expected)).all()
    assert numbers.sum() == pytest.approx(np.floor(sum(expected) + 1e-6))


@pytest.mark.slow
def test_the_mean_over_epochs_is_the_expectation() -> None:
    """Standard error of the mean: at most 0.5 / sqrt(4000) = 0.008."""
    mean = np.mean([SOME.copies(0, epoch) for epoch in range(4000)], axis=0)
    assert np.abs(mean - SOME.repeats).max() < 0.04


def test_each_epoch_draws_again_and_has_the_same_numbers_with_and_without_objects() -> None:
    epochs = [SOME.copies(0, epoch) for epoch in range(50)]
    assert {int(copies[SOME.background].sum()) for copies in epochs} == {2}
    assert {int(copies[~SOME.background].sum()) for copies in epochs} == {9}
    pairs = {tuple(np.flatnonzero(copies[SOME.background])) for copies in epochs}
    assert len(pairs) == 6, "every pair of the four images without objects"
    assert (SOME.copies(1, 0) != epochs[0]).any() or (SOME.copies(1, 1) != epochs[1]).any()


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_ranks_share_an_epoch_without_overlap(batch_size: int, world_size: int, epoch: int) -> None:
    ranks = [
        BatchSampler(SOME, batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.set_epoch(epoch)
    drawn = Counter(chain.from_iterable(chain.from_iterable(ranks)))
    left_over = len(SOME) % (batch_size * world_size)
    repeats = max(0, world_size - left_over) if left_over else 0
    assert set(drawn) == set(SOME.draws(0, epoch))
    assert drawn.total() == len(SOME) + repeats


@given(st.integers(0, 6), st.integers(0, 9))
def test_an_epoch_resumed_at_a_batch_is_the_rest_of_it(start: int, epoch: int) -> None:
    whole, rest = BatchSampler(SOME, 2), BatchSampler(SOME, 2)
    whole.set_epoch(epoch)
    rest.resume(epoch, start)
    assert list(rest) == list(whole)[start:]


@given(st.integers(1, 30), st.integers(0, 9))
def test_each_image_once_is_the_order_of_a_plain_shuffle(images: int, epoch: int) -> None:
    order = list(range(images))
    Random(f"3 {epoch}").shuffle(order)
    sampler = BatchSampler(images, 4, seed=3)
    sampler.set_epoch(epoch)
    assert list(chain.from_iterable(sampler)) == [(epoch, place, 0) for place in order]
