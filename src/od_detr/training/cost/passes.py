"""What one pass through a network costs, worked out from passes of small blank images."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from od_detr.detectors import DetectionTransformer
from od_detr.objectives import total
from od_detr.structures import Batch, Targets
from od_detr.training.supervised import Supervised

ASPECT = 4 / 3  # of the usual photograph, for which costs are stated
OBJECTS = 7  # in an image of COCO, on average
SMALLEST = 64  # below, the last feature map is one cell, which batch norms cannot train on
SMALL = ((192, 256), (288, 384))  # multiples of 32, of the same aspect


def extrapolated(measured: Callable[[tuple[int, int]], int], size: tuple[int, int]) -> int:
    """A cost at `size` (height, width) from its measurement at two small sizes.

    Convolutions, the encoder and the projections of its memory cost as much for each pixel; what
    the queries do among themselves does not depend on the image. So a cost is a + b * pixels, up to
    the rounding of feature maps. A size below the larger small one is measured itself.
    """
    size = (max(size[0], SMALLEST), max(size[1], SMALLEST))
    area = size[0] * size[1]
    areas = [height * width for height, width in SMALL]
    if area <= areas[1]:
        return measured(size)
    low, high = (measured(small) for small in SMALL)
    slope = (high - low) / (areas[1] - areas[0])
    return round(high + slope * (area - areas[1]))


def flops(detector: DetectionTransformer, size: tuple[int, int]) -> int:
    """Floating-point operations of detecting in one image of `size` (height, width)."""
    still = copy.deepcopy(detector).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        still(blank_batch(size, 0))
    return counter.get_total_flops()


def saved_bytes(network: Supervised, size: tuple[int, int]) -> int:
    """Bytes that the backward pass of one image of `size` keeps, each storage counted once."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    network.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = total(network(blank_batch(size, OBJECTS)))
    weights = {each.untyped_storage().data_ptr() for each in network.detector.parameters()}
    del loss
    return sum(nbytes for pointer, nbytes in seen.items() if pointer not in weights)


def blank_batch(size: tuple[int, int], objects: int, images: int = 1) -> Batch:
    """Grey images of `size` (height, width), each with `objects` objects in its middle."""
    targets = Targets(
        torch.full((objects * images, 4), 0.5),
        torch.zeros(objects * images, dtype=torch.long),
        (objects,) * images,
    )
    pixels = torch.full((images, 3, *size), 128, dtype=torch.uint8)
    padding = torch.zeros(images, *size, dtype=torch.bool)
    return Batch(pixels, padding, targets, tuple(range(images)), (size,) * images)
