"""The optimizer, its schedule, and when a run is validated."""

from __future__ import annotations

from dataclasses import dataclass

from od_detr.options.fields import option


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW as the originals use it."""

    lr: float | None = option(
        None,
        "Learning rate.",
        at_least=0,
        cap=1e30,
        everyday=True,
        resolved=True,
        shown="2e-4; DAB and DINO: 1e-4",
        known_as=("lr0", "learning_rate", "base_lr"),
    )
    backbone_lr: float | None = option(
        None,
        "Learning rate of the backbone as a fraction of --opt.lr.",
        at_least=0,
        cap=1e30,
        resolved=True,
        shown="0.1; 1 without pretrained weights",
        known_as=("lr_backbone", "lr_encoder"),
    )
    wd: float = option(1e-4, "Weight decay.", at_least=0, cap=1e30, known_as=("weight_decay",))
    clip: float = option(
        0.1,
        "Largest norm of the gradients; they are scaled down to it. 0 turns it off.",
        at_least=0,
        cap=1e30,
        known_as=("clip_max_norm", "max_grad_norm", "gradient_clip_val", "grad_clip"),
    )
    drop: int | None = option(
        None,
        "Epoch after which the learning rate is divided by 10.",
        at_least=1,
        cap=10**6,
        because="0 would freeze an untrained teacher at the first step",
        everyday=True,
        resolved=True,
        shown="20 of 24; 40 of 50; else 5/6 of --epochs",
        known_as=("lr_drop", "lr_step", "milestones", "step_size"),
    )
    warmup: int = option(
        0,
        "Optimizer steps of linear warm-up.",
        at_least=0,
        cap=10**9,
        known_as=("warmup_steps", "warmup_epochs", "warmup_iters"),
    )


@dataclass(frozen=True)
class EvalOptions:
    """Validation during training."""

    every: int = option(
        1,
        "Epochs between validations. The last epoch is always validated.",
        at_least=1,
        known_as=("val", "val_interval", "check_val_every_n_epoch"),
    )
    topk: int | None = option(
        None,
        "Number of detections in an image that are evaluated.",
        at_least=1,
        resolved=True,
        shown="100; DINO: 300",
        known_as=("max_det",),
    )
    samples: int = option(
        4,
        "Validation images to draw after each validation, with their objects and detections.",
        at_least=0,
    )
