"""What a run would cost, without training it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from od_detr.detectors import DetectionTransformer
from od_detr.objectives import total
from od_detr.options import TrainOptions
from od_detr.structures import Batch, Targets
from od_detr.training.plan import assembled, planned
from od_detr.training.supervised import Supervised

ASPECT = 4 / 3  # of the usual photograph, for which costs are stated
OBJECTS = 7  # in an image of COCO, on average
SMALLEST = 64  # below, the last feature map is one cell, which batch norms cannot train on
SMALL = ((192, 256), (288, 384))  # multiples of 32, of the same aspect


def dry_run(options: TrainOptions) -> dict[str, Any]:
    """Checks data and options, and works out what a run costs without training it.

    Returns parameters (all and trainable), FLOPs of detecting in one image at the test size, bytes
    that one step of the batch holds (weights, gradients, optimizer, teacher, and what the backward
    pass saves), the device, optimizer steps and epochs.

    Raises:
        InputError: as `fit` with the same options.
    """
    plan = planned(options)
    # Sizes do not depend on weights, and they need not be downloaded. A file is checked.
    weights = "none" if options.backbone_weights == "imagenet" else options.backbone_weights
    blank = dataclasses.replace(plan.options, backbone_weights=weights)
    pretrained = options.backbone_weights != "none"
    parts = assembled(dataclasses.replace(plan, options=blank), frozen=pretrained or None)
    network = parts.network
    sizes = [each.numel() for each in network.detector.parameters()]
    trainable = [each.numel() for each in network.detector.parameters() if each.requires_grad]
    copies = 1 if network.teacher is None else 2
    held = 4 * (sum(sizes) * copies + 3 * sum(trainable))
    side = plan.options.short_side
    size = (side, round(side * ASPECT))
    saved = extrapolated(lambda small: saved_bytes(network, small), size)
    return {
        "images": len(parts.train),
        "validation_images": len(parts.val_batches.dataset),  # pyright: ignore[reportArgumentType]
        "classes": list(parts.train.classes),
        "model": parts.options.model,
        "backbone": parts.options.backbone,
        "image_size": side,
        "device": str(parts.fabric.device),
        "devices": plan.place.world_size,
        "epochs": options.epochs,
        "steps": parts.state.steps_per_epoch * options.epochs,
        "parameters": sum(sizes),
        "trainable_parameters": sum(trainable),
        "flops_per_image": extrapolated(lambda small: flops(network.detector, small), size),
        "batch_bytes": held + options.batch_size * saved,
    }


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
