"""AdamW and its schedule, with the parameter groups of the original implementations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from od_detr.architectures import Architecture
from od_detr.detectors import DetectionTransformer
from od_detr.options import OptimizerOptions

OFFSETS = ("reference_points", "sampling_offsets")


def make_optimizer(
    detector: DetectionTransformer,
    options: OptimizerOptions,
    architecture: Architecture,
    fused: bool = True,
) -> AdamW:
    """AdamW over the trainable parameters of a detector.

    A pretrained backbone learns slower, and so do Deformable-DETR's sampling offsets. A fused step
    would unscale fp16's gradients by itself, so that they could not be clipped before it.
    """
    lr = architecture.lr if options.lr is None else options.lr
    backbone = default_backbone_lr(detector) if options.backbone_lr is None else options.backbone_lr
    rates: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            share = 1.0
            if name.startswith("backbone."):
                share = backbone
            elif any(part in name for part in OFFSETS):
                share = architecture.offsets_lr
            rates.setdefault(share, []).append(parameter)
    groups = [{"params": parameters, "lr": lr * share} for share, parameters in rates.items()]
    return AdamW(groups, lr=lr, weight_decay=options.wd, fused=fused or None)


def clip_gradients(detector: DetectionTransformer, largest: float) -> Tensor:
    """Scales all gradients down to norm `largest` (0 leaves them) and returns their norm before.

    One fused norm, which stays on the device.
    """
    if largest:
        return torch.nn.utils.clip_grad_norm_(detector.parameters(), largest)
    gradients = [each.grad for each in detector.parameters() if each.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def default_backbone_lr(detector: DetectionTransformer) -> float:
    """The backbone's learning rate as a share of the others': 0.1, or 1 if it starts from scratch.

    Frozen norms show that pretrained weights were loaded.
    """
    return 0.1 if detector.settings["backbone_frozen"] else 1.0


def make_schedule(
    optimizer: Optimizer, steps_per_epoch: int, drop_epoch: int, warmup: int
) -> LambdaLR:
    """The rate by optimizer step: linear warm-up, constant, a tenth from `drop_epoch` on.

    `drop_epoch` counts epochs from 0.
    """

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (warmup + 1))
        return rise * (0.1 if step >= drop_epoch * steps_per_epoch else 1.0)

    return LambdaLR(optimizer, factor)
