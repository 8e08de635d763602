"""What training draws is a function of (seed, epoch, batch, rank), or of (seed, epoch, image).

It depends on nothing that was drawn before, so a resumed run draws what an uninterrupted one draws
and a checkpoint holds no generator state.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


def seed_batch(seed: int, epoch: int, batch: int, rank: int) -> None:
    """Seeds PyTorch's generators for one batch of one rank."""
    torch.manual_seed(_number(seed, epoch, batch, rank))


def image_keys(seed: int, epoch: int, image_ids: Iterable[int]) -> tuple[int, ...]:
    """A number for each image in an epoch, which choices about it are drawn from."""
    return tuple(_number(seed, epoch, image) for image in image_ids)


def _number(*parts: int) -> int:
    """A number from 0 to 2^63 - 1 that is the same in every process."""
    return hash(parts) % 2**63
