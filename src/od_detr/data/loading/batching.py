"""From samples to batches, in an order that depends on nothing but the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import torch
from torch.utils.data import Sampler

from od_detr.data.sampling.composition import Composition, Draw
from od_detr.data.transforms import Sample
from od_detr.structures import Batch, Targets


def collate(samples: Sequence[Sample]) -> Batch:
    """Pads images at the bottom and the right to the batch's largest height and width, and joins
    their targets.

    Pixels stay uint8; padding is 0 in `images` and True in `padding`.
    """
    height = max(sample.image.shape[1] for sample in samples)
    width = max(sample.image.shape[2] for sample in samples)
    images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
    padding = torch.ones(len(samples), height, width, dtype=torch.bool)
    for sample, image, mask in zip(samples, images, padding, strict=True):
        rows, columns = sample.image.shape[1:]
        image[:, :rows, :columns] = sample.image
        mask[:rows, :columns] = False
    targets = Targets(
        torch.cat([sample.boxes for sample in samples]),
        torch.cat([sample.labels for sample in samples]),
        tuple(len(sample.labels) for sample in samples),
    )
    return Batch(
        images,
        padding,
        targets,
        tuple(sample.image_id for sample in samples),
        tuple(sample.size for sample in samples),
    )


class BatchSampler(Sampler[list[Draw]]):
    """The batches of images that one rank trains on, a pure function of seed and epoch.

    An epoch is one order of its images, cut into pieces of ``world_size * batch_size``, and each
    piece into one batch a rank, so that all ranks take equally many steps. The last piece is shared
    as evenly as it can be, or left out with `drop_last`, as DETR does in training. Only where it
    has fewer images than there are ranks do some of them repeat an image.

    `set_epoch` chooses the epoch and `resume` the batch of it to start at, which is all the state
    there is.

    Args:
        images: the images of an epoch; a number stands for so many images, each once.
        batch_size: images a step *and rank*.
        shuffle: draws another order each epoch; without it the order is the data set's.
        seed: any integer, the same on all ranks.
        rank: this process among the `world_size` that train together.
        drop_last: leaves out a last step that is not full, unless it is the only one.
        accumulate: batches a step. An epoch then has as many steps as with batches that are as
            many times larger.
    """

    def __init__(
        self,
        images: int | Composition,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        accumulate: int = 1,
    ) -> None:
        self.images = Composition.each_once(images) if isinstance(images, int) else images
        if not len(self.images) or batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"no batches of {batch_size} from {len(self.images)} samples for rank {rank} of "
                f"{world_size}"
            )
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.accumulate = accumulate
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; a start set by `resume` for this very epoch stays."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def resume(self, epoch: int, batch: int) -> None:
        """Lets the next iteration begin at this batch of this epoch, as if it had never stopped."""
        self.epoch, self.start = epoch, batch

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever in it the next iteration begins."""
        length, together = len(self.images), self.batch_size * self.world_size
        if not self.drop_last:
            return -(-length // together)
        steps = length // (together * self.accumulate)
        return steps * self.accumulate or -(-length // together)

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self.images.draws(self.seed, self.epoch)
        if self.shuffle:
            Random(f"{self.seed} {self.epoch}").shuffle(order)
        together = self.batch_size * self.world_size
        for batch in range(self.start, len(self)):
            draws = order[batch * together : (batch + 1) * together]
            yield draws[self.rank :: self.world_size] or [draws[self.rank % len(draws)]]


class AlikeBatches(Sampler[list[int]]):
    """Batches of places whose samples have the same size, so that none of them is padded.

    What a detector finds in an image depends on the padding around it. Without padding it is the
    same for every batch size. Each place occurs once, in the batches of one rank.

    Args:
        sizes: (height, width) of each sample as it enters the detector.
        batch_size: most samples in a batch.
        rank: this process among the `world_size` that share the batches.
    """

    seed = 0

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        alike: dict[tuple[int, int], list[int]] = {}
        for place, size in enumerate(sizes):
            alike.setdefault(size, []).append(place)
        batches = [
            places[start : start + batch_size]
            for places in alike.values()
            for start in range(0, len(places), batch_size)
        ]
        self.batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
