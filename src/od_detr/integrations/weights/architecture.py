"""Derives the architecture and sizes of a detector from its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from od_detr.errors import InputError

HEADS = 8  # attention heads of every published checkpoint
RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
# Arguments of the official training scripts with which their weights can be used here.
EXPECTED = {
    "two_stage": (False,),
    "two_stage_type": ("no", "standard"),
    "position_embedding": ("sine", "v2"),
    "transformer_activation": ("relu",),
    "activation": ("relu",),
    "pre_norm": (False,),
    "dilation": (False,),
    "decoder_sa_type": ("sa",),
    "num_patterns": (0,),
}


def resembles(weights: Mapping[str, Tensor]) -> str:
    """The kind of detector that has such official names; in words if it is not one of ours."""
    names = "\n".join(weights)
    levels = weights.get("transformer.level_embed")
    if levels is None:
        if "transformer.encoder.layers.0.self_attn.in_proj_weight" in weights:
            return "a DETR without deformable attention"
        return (
            "a bare backbone"
            if re.search(r"^(layer1\.0|stages?)\.", names, re.M)
            else "no detector of this package"
        )
    if "transformer.tgt_embed.weight" in weights:
        return f"dino-{len(levels)}scale"
    if "transformer.enc_output.weight" in weights:
        return "a two-stage Deformable-DETR"
    if "refpoint_embed.weight" in weights:
        return "dab-deformable-detr"
    return (
        "deformable-detr-plus" if "query_embed.weight" in weights else "no detector of this package"
    )


def sizes_of(
    weights: Mapping[str, Tensor], arguments: Mapping[str, Any], source: Path
) -> dict[str, Any]:
    """The builder arguments of a detector with these weights.

    Args:
        weights: the tensors under our names.
        arguments: of the training script. They give the number of attention heads, which the
            weights do not show; without it there are `HEADS`.
        source: the checkpoint, for messages.

    Raises:
        InputError: the backbone is not a known ResNet, or sizes contradict each other.
    """
    levels, hidden_dim = (int(size) for size in _shape(weights, "encoder.level_embed", source))
    heads = int(arguments.get("nheads") or arguments.get("heads") or HEADS)
    sampled = _shape(weights, "encoder.layers.0.self_attn.attention_weights.bias", source)[0]
    points, remainder = divmod(sampled, levels * heads)
    if remainder or hidden_dim % heads:
        raise InputError(
            f"{source}: {heads} heads do not fit {hidden_dim} channels and {sampled} sampled "
            f"points on {levels} levels; the checkpoint's own arguments do not describe its weights"
        )
    kernels = [
        weights[name].shape[-1]
        for name in weights
        if re.fullmatch(r"neck\.projections\.\d+\.0\.weight", name)
    ]
    maps = kernels.count(1)
    queries = (
        "queries.content.weight"
        if "queries.content.weight" in weights
        else "queries.embedding.weight"
    )
    return {
        "backbone": _backbone(weights, source),
        "strides": tuple(2 ** (6 - maps + index) for index in range(maps)),
        "num_levels": levels,
        "hidden_dim": hidden_dim,
        "heads": heads,
        "points": points,
        "encoder_layers": _count(weights, "encoder.layers."),
        "decoder_layers": _count(weights, "decoder.layers."),
        "feedforward": _shape(weights, "encoder.layers.0.linear1.weight", source)[0],
        "queries": _shape(weights, queries, source)[0],
        "dropout": float(arguments.get("dropout", 0.0)),
    }


def check_arguments(arguments: Mapping[str, Any], source: Path) -> None:
    """Checks that the training script's arguments describe a detector that exists here.

    Raises:
        InputError: an argument has another value; the message names it.
    """
    for name, allowed in EXPECTED.items():
        if arguments.get(name, allowed[0]) not in allowed:
            raise InputError(
                f"{source}: was trained with {name} {arguments[name]!r}, but this package's "
                f"detectors have {allowed[0]!r}; it cannot be converted"
            )


def _shape(weights: Mapping[str, Tensor], name: str, source: Path) -> tuple[int, ...]:
    if name not in weights:
        raise InputError(
            f"{source}: has no counterpart of '{name}'; it is a checkpoint of another architecture"
        )
    return tuple(weights[name].shape)


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    place = prefix.count(".")
    return len({name.split(".")[place] for name in weights if name.startswith(prefix)})


def _backbone(weights: Mapping[str, Tensor], source: Path) -> str:
    blocks = tuple(_count(weights, f"backbone.features.layer{stage}.") for stage in (1, 2, 3, 4))
    bottleneck = "backbone.features.layer1.0.conv3.weight" in weights
    if (bottleneck, blocks) not in RESNETS:
        raise InputError(
            f"{source}: its backbone is none of {', '.join(RESNETS.values())}; no other can be "
            "converted"
        )
    return RESNETS[bottleneck, blocks]
