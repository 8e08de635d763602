"""Batches are a pure function of seed and epoch, for any ranks, workers and resumptions."""

from __future__ import annotations

import os
import signal
from itertools import chain
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from od_detr.data.dataset import CocoDataset
from od_detr.data.loading.batching import BatchSampler, collate
from od_detr.data.loading.workers import Loader
from od_detr.data.sampling.composition import Draw
from od_detr.data.transforms import Sample, Transform
from od_detr.errors import InputError
from od_detr.structures import Batch


def made_up(height: int, width: int, boxes: int, image_id: int) -> Sample:
    generator = torch.Generator().manual_seed(image_id)
    image = torch.randint(1, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    return Sample(
        image,
        torch.rand(boxes, 4, generator=generator),
        torch.arange(boxes),
        image_id,
        (2 * height, 2 * width),
    )


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=4
    )
)
def test_every_sample_comes_back_out_of_its_padded_batch(
    shapes: list[tuple[int, int, int]],
) -> None:
    samples = [made_up(*shape, image_id) for image_id, shape in enumerate(shapes)]
    batch = collate(samples)
    assert batch.images.shape[2:] == (max(s[0] for s in shapes), max(s[1] for s in shapes))
    assert batch.images.dtype == torch.uint8
    assert batch.image_ids == tuple(range(len(shapes)))
    for index, sample in enumerate(samples):
        height, width = sample.image.shape[1:]
        seen = ~batch.padding[index]
        assert seen[:height, :width].all()
        assert seen.sum() == height * width
        assert torch.equal(batch.images[index, :, :height, :width], sample.image)
        assert not batch.images[index][:, batch.padding[index]].any()
        mine = batch.targets.image == index
        assert torch.equal(batch.targets.boxes[mine], sample.boxes)
        assert torch.equal(batch.targets.labels[mine], sample.labels)
        assert batch.sizes[index] == sample.size


SPLITS = st.tuples(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5), st.integers(0, 3))


@settings(deadline=None)
@given(SPLITS, st.booleans())
def test_the_ranks_share_out_an_epoch(split: tuple[int, int, int, int], shuffle: bool) -> None:
    length, batch_size, world_size, epoch = split
    ranks = [
        BatchSampler(length, batch_size, rank=rank, world_size=world_size, shuffle=shuffle)
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.set_epoch(epoch)
    batches = [list(rank) for rank in ranks]
    assert {len(mine) for mine in batches} == {len(ranks[0])}
    assert all(1 <= len(batch) <= batch_size for mine in batches for batch in mine)
    indices = list(chain.from_iterable(chain.from_iterable(batches)))
    assert {index[0] for index in indices} == {epoch}
    assert {index[1] for index in indices} == set(range(length))
    left_over = length % (batch_size * world_size)
    repeats = max(0, world_size - left_over) if left_over else 0
    assert len(indices) == length + repeats


@settings(deadline=None)
@given(SPLITS)
def test_dropping_the_last_step_leaves_full_batches_without_repeats(
    split: tuple[int, int, int, int],
) -> None:
    length, batch_size, world_size, _ = split
    step = batch_size * world_size
    ranks = [
        BatchSampler(length, batch_size, rank=rank, world_size=world_size, drop_last=True)
        for rank in range(world_size)
    ]
    batches = [list(rank) for rank in ranks]
    assert {len(mine) for mine in batches} == {max(1, length // step)}
    if length >= step:
        places = [place for mine in batches for batch in mine for _, place, _ in batch]
        assert all(len(batch) == batch_size for mine in batches for batch in mine)
        assert len(set(places)) == len(places) == length // step * step


@settings(deadline=None)
@given(SPLITS, st.integers(1, 4))
def test_a_step_has_the_same_images_however_they_are_shared(
    split: tuple[int, int, int, int], times: int
) -> None:
    length, batch_size, world_size, _ = split
    rest = {"world_size": world_size, "drop_last": True}

    def steps(batch_size: int, accumulate: int) -> list[set[int]]:
        ranks = [
            [[draw.place for draw in batch] for batch in sampler]
            for rank in range(world_size)
            if (
                sampler := BatchSampler(
                    length, batch_size, rank=rank, accumulate=accumulate, **rest
                )
            )
        ]
        together = [set(chain(*batches)) for batches in zip(*ranks, strict=True)]
        return [
            set().union(*together[first : first + accumulate])
            for first in range(0, len(together), accumulate)
        ]

    assert steps(batch_size, times) == steps(batch_size * times, 1)


@settings(deadline=None)
@given(SPLITS, st.integers(0, 60), st.booleans())
def test_an_epoch_resumed_at_a_batch_is_the_rest_of_that_epoch(
    split: tuple[int, int, int, int], start: int, drop_last: bool
) -> None:
    length, batch_size, world_size, epoch = split
    whole = BatchSampler(length, batch_size, world_size=world_size, seed=5, drop_last=drop_last)
    whole.set_epoch(epoch)
    rest = BatchSampler(length, batch_size, world_size=world_size, seed=5, drop_last=drop_last)
    rest.resume(epoch, start)
    rest.set_epoch(epoch)  # a training loop announces every epoch, the resumed one too
    assert list(rest) == list(whole)[start:]
    assert len(rest) == len(whole)
    for sampler in (rest, whole):
        sampler.set_epoch(epoch + 1)
    assert list(rest) == list(whole)


def test_epochs_and_seeds_differ_and_validation_keeps_the_order() -> None:
    sampler, other = BatchSampler(50, 4), BatchSampler(50, 4, seed=1)
    first = list(sampler)
    assert list(sampler) == first
    assert list(other) != first
    sampler.set_epoch(1)
    assert [[place for _, place, _ in batch] for batch in sampler] != [
        [place for _, place, _ in batch] for batch in first
    ]
    in_order = [[draw.place for draw in batch] for batch in BatchSampler(5, 2, shuffle=False)]
    assert in_order == [[0, 1], [2, 3], [4]]


def same(a: Batch, b: Batch) -> bool:
    return (
        a.image_ids == b.image_ids
        and torch.equal(a.images, b.images)
        and torch.equal(a.targets.boxes, b.targets.boxes)
        and torch.equal(a.targets.labels, b.targets.labels)
    )


def test_workers_resumption_and_global_randomness_change_nothing(sound: dict, write) -> None:
    dataset = CocoDataset.from_folder(write(sound), "train", Transform(64, "detr"), seed=1)

    def epochs(workers: int, start: tuple[int, int] = (0, 0)) -> list[Batch]:
        torch.manual_seed(workers)
        sampler = BatchSampler(len(dataset), 1, seed=1)
        batches, found = Loader(dataset, sampler, workers), []
        sampler.resume(*start)
        for epoch in range(start[0], 3):
            sampler.set_epoch(epoch)
            found += list(batches)
        return found

    alone, together = epochs(0), epochs(2)
    assert len(alone) == len(together) == 9
    assert all(map(same, alone, together))
    assert all(map(same, alone[4:], epochs(2, (1, 1))))


def test_iterating_draws_nothing_from_torchs_global_generator(sound: dict, write) -> None:
    dataset = CocoDataset.from_folder(write(sound), "train", Transform(64, "detr"))
    before = torch.get_rng_state()
    list(Loader(dataset, BatchSampler(3, 2)))
    assert torch.equal(torch.get_rng_state(), before)


def drain(batches: DataLoader[Batch]) -> None:
    """Iterates once and sends the workers home at once.

    Left to the garbage collector, that takes seconds.
    """
    try:
        list(batches)
    finally:
        if batches.num_workers:
            batches._iterator._shutdown_workers()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_line_from_any_worker(sound: dict, write, workers: int) -> None:
    folder = write(sound)
    (folder / "images" / "b.jpg").write_bytes(b"\xff\xd8\xff broken")
    dataset = CocoDataset.from_folder(folder, "train")
    with pytest.raises(InputError, match=r"^[^\n]*train\.json: image 10: [^\n]*b\.jpg[^\n]*$"):
        drain(Loader(dataset, BatchSampler(3, 1), workers))


class Deadly(Dataset):
    """Samples whose reading kills the process that reads."""

    def __getitem__(self, index: Draw) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


def test_a_killed_worker_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(
        InputError, match=r"^one of the 1 data loading workers died[^\n]*--workers 0$"
    ):
        drain(Loader(Deadly(), BatchSampler(3, 1), 1))


def test_an_error_of_ours_in_a_worker_stays_an_error_of_ours() -> None:
    class Wrong(Dataset):
        def __getitem__(self, index: Draw) -> Sample:
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect") as error:
        drain(Loader(Wrong(), BatchSampler(3, 1), 1))
    assert not isinstance(error.value, InputError)


def test_real_photographs_become_batches(shared_data: Path) -> None:
    dataset = CocoDataset.from_folder(shared_data / "coco_tiny", "train", Transform(96, "detr"))
    sampler = BatchSampler(len(dataset), 4, seed=Random(0).randrange(10), drop_last=True)
    batches = list(Loader(dataset, sampler))
    assert len(batches) == len(dataset) // 4
    assert all(len(batch.targets) == len(batch.targets.boxes) for batch in batches)
