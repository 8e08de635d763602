"""Options that mean nothing, or harm, without another one."""

from __future__ import annotations

from od_detr.errors import InputError
from od_detr.options import TrainOptions


def check_together(options: TrainOptions) -> None:
    """Refuses what would have no effect, or no gradient, as it is.

    Raises:
        InputError: naming the option and what it needs.
    """
    ema, md, stages, gamma = options.ema, options.md, options.ag.stages or (), options.qfl.gamma
    if ema.warmup == "exp" and not ema.warmup_steps:
        raise InputError("--ema.warmup exp: lasts 0 steps; give --ema.warmup-steps")
    if md.cond_own and md.cond_iou is None:
        raise InputError("--md.cond-own: has no effect alone; give --md.cond-iou")
    if len(set(stages)) < len(stages):
        raise InputError(f"--ag.stages: {list(stages)} names a stage twice; give each once")
    if 0 < gamma < 1:
        raise InputError(
            f"--qfl.gamma {gamma}: the gradient is infinite where a score is its target; give 0, "
            "or 1 or more"
        )
