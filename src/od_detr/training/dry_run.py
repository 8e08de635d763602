"""What a run would cost, told before it starts."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from od_detr.detectors import DetectionTransformer
from od_detr.objectives import total
from od_detr.options import TrainOptions, check_limits
from od_detr.structures import Batch, Targets
from od_detr.training.fit import open_data, open_detector
from od_detr.training.recipe import make_recipe
from od_detr.training.teacher import Teacher

ASPECT = 4 / 3  # of the usual photograph, for which costs are stated


def dry_run(options: TrainOptions) -> dict[str, Any]:
    """Checks data and options, and measures the detector without training it.

    Returns parameters (all and trainable), FLOPs of detecting in one image at the test size, and bytes that one
    step of the batch holds: weights, gradients, optimiser, teacher, and what the backward pass saves.
    """
    check_limits(options)
    train, val = open_data(options)
    weights = "none"  # sizes do not depend on them, and they need not be fetched
    plain = dataclasses.replace(options, backbone_weights=weights)
    detector = open_detector(plain, train, frozen=options.backbone_weights != "none")
    parameters = [parameter.numel() for parameter in detector.parameters()]
    trainable = [
        parameter.numel() for parameter in detector.parameters() if parameter.requires_grad
    ]
    size = (options.image_size, round(options.image_size * ASPECT))
    still = copy.deepcopy(detector).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        still(_blank(size, 0))
    copies = 1 + int(options.distils or options.ema.track)
    held = 4 * (sum(parameters) * copies + 3 * sum(trainable))
    return {
        "images": len(train),
        "validation_images": len(val),
        "classes": list(train.classes),
        "parameters": sum(parameters),
        "trainable_parameters": sum(trainable),
        "flops_per_image": counter.get_total_flops(),
        "batch_bytes": held + options.batch_size * _saved_bytes(detector, options, size),
    }


def _blank(size: tuple[int, int], objects: int) -> Batch:
    """One grey image with objects in its middle."""
    targets = Targets(
        torch.full((objects, 4), 0.5), torch.zeros(objects, dtype=torch.long), (objects,)
    )
    images = torch.full((1, 3, *size), 128, dtype=torch.uint8)
    return Batch(images, torch.zeros(1, *size, dtype=torch.bool), targets, (0,), (size,))


def _saved_bytes(
    detector: DetectionTransformer, options: TrainOptions, size: tuple[int, int]
) -> int:
    """Bytes that the backward pass of one image keeps, each storage counted once."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    detector.train()
    recipe = make_recipe(options, detector, Teacher(detector) if options.distils else None)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = total(recipe.losses(detector, _blank(size, 7)))
    weights = {parameter.untyped_storage().data_ptr() for parameter in detector.parameters()}
    del loss
    return sum(nbytes for pointer, nbytes in seen.items() if pointer not in weights)
