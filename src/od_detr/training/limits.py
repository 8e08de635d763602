"""What numbers make sense: asked before anything is opened or written."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from od_detr.devices import check_devices
from od_detr.errors import InputError
from od_detr.options import TrainOptions

ANY = float("inf")
LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, ANY),
    "batch_size": (1, ANY),
    "accumulate": (1, ANY),
    "image_size": (16, ANY),
    "hidden_dim": (8, ANY),
    "encoder_layers": (1, ANY),
    "decoder_layers": (1, ANY),
    "queries": (1, ANY),
    "feedforward": (1, ANY),
    "num_levels": (3, ANY),
    "dropout": (0, 1),
    "seed": (0, 2**32 - 1),
    "devices": (1, ANY),
    "workers": (0, ANY),
    "threshold": (0, 1),
    "seeds": (1, ANY),
    "first_seed": (0, 2**32 - 1),
    "jobs": (1, ANY),
    "lr": (0, ANY),
    "opt.lr": (0, ANY),
    "opt.backbone_lr": (0, ANY),
    "opt.wd": (0, ANY),
    "opt.clip": (0, ANY),
    "opt.drop": (0, ANY),
    "opt.warmup": (0, ANY),
    "ema.decay": (0, 1),
    "ema.warmup_steps": (0, ANY),
    "qfl.class_weight": (0, ANY),
    "qfl.alpha": (0, 1),
    "qfl.gamma": (0, ANY),
    "md.wd": (0, ANY),
    "md.cond_iou": (0, 1),
    "ag.max_queries": (1, ANY),
    "ag.weight": (0, ANY),
    "distill.start": (0, ANY),
    "eval.every": (1, ANY),
    "eval.topk": (1, ANY),
}
WIDTH = 8  # heads and sine positions divide the transformer's width


def check_limits(options: Any) -> None:
    """Refuses the first number of any verb's options that is out of its range.

    Raises:
        InputError: naming the option and its range.
    """
    _check_choices(options)
    for name, (least, most) in LIMITS.items():
        value = options
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None and not least <= value <= most:
            span = f"{least} or more" if most == ANY else f"a value from {least} to {most}"
            raise InputError(f"--{flag_name(name)}: {value} makes no sense; give {span}")
    width = getattr(options, "hidden_dim", None)
    if width is not None and width % WIDTH:
        raise InputError(
            f"--hidden-dim: {width} is not a multiple of {WIDTH}; give {width // WIDTH * WIDTH}"
        )


def _check_choices(options: Any, prefix: str = "") -> None:
    """From Python any text can be given where the command line offers a few words."""
    if not is_dataclass(options):
        return
    hints = get_type_hints(type(options))
    for name, value in vars(options).items():
        _check_choices(value, f"{prefix}{name}.")
        if get_origin(hints[name]) is Literal and value not in get_args(hints[name]):
            raise InputError(
                f"--{flag_name(prefix + name)}: {value} is not a choice; give one of {', '.join(get_args(hints[name]))}"
            )


def check_stages(options: TrainOptions, layers: int) -> None:
    """Auxiliary groups start from stages that the detector has."""
    stages = options.ag.stages or ()
    wrong = [stage for stage in stages if not 1 <= stage <= layers]
    if wrong or options.ag.stages == ():
        raise InputError(
            f"--ag.stages: {list(stages)} are not stages of {layers} decoder layers; give numbers from 1 to {layers}"
        )


def check_device(options: TrainOptions) -> None:
    """The devices asked for are here, and can compute in this precision."""
    device = check_devices(options)
    if options.compile:
        from od_detr.detectors import check_compiles

        check_compiles(device)


def flag_name(key: str) -> str:
    """An option's name as it is typed."""
    return key.rstrip("_").replace("_", "-")
