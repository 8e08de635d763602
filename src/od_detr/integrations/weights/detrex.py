"""Weight names of detrex's versions of the three detectors, translated to the official ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from od_detr.integrations.weights.weight_names import Pair, Renaming

# Unlike the official DINO, detrex encodes positions in the image as Deformable-DETR does.
DINO_SETTINGS = {"temperature": 10000.0, "half_pixel": True}

_ENCODER, _DECODER = "transformer.encoder.layers.{}.", "transformer.decoder.layers.{}."


def _layer(prefix: str, **parts: str) -> tuple[Pair, ...]:
    """Name pairs for a transformer layer: the official name, and detrex's numbered one."""
    feedforward = {"linear1": "ffns.0.layers.0.0", "linear2": "ffns.0.layers.1"}
    return tuple(
        (f"{prefix}{right}.", f"{prefix}{left}.") for left, right in (parts | feedforward).items()
    )


def _resnet(stage: int) -> tuple[Pair, ...]:
    left, right = f"backbone.res{stage + 1}.{{}}.", f"backbone.0.body.layer{stage}.{{}}."
    convolutions = [
        pair
        for i in (1, 2, 3)
        for pair in (
            (f"{left}conv{i}.norm.", f"{right}bn{i}."),
            (f"{left}conv{i}.", f"{right}conv{i}."),
        )
    ]
    shortcut = (
        (f"{left}shortcut.norm.", f"{right}downsample.1."),
        (f"{left}shortcut.", f"{right}downsample.0."),
    )
    return (*convolutions, *shortcut)


NAMES = Renaming(
    *_layer(_ENCODER, self_attn="attentions.0", norm1="norms.0", norm2="norms.1"),
    *_layer(
        _DECODER,
        self_attn="attentions.0.attn",
        cross_attn="attentions.1",
        norm2="norms.0",
        norm1="norms.1",
        norm3="norms.2",
    ),
    ("transformer.level_embeds", "transformer.level_embed"),
    ("query_embedding.weight", "query_embed.weight"),
    ("neck.convs.{}.conv.", "input_proj.{}.0."),
    ("neck.convs.{}.norm.", "input_proj.{}.1."),
    ("backbone.stem.conv1.norm.", "backbone.0.body.bn1."),
    ("backbone.stem.conv1.", "backbone.0.body.conv1."),
    *(pair for stage in (1, 2, 3, 4) for pair in _resnet(stage)),
)


def to_official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of a detrex checkpoint to the official names.

    Names that are equal on both sides are kept. detrex numbers the additional levels of the neck
    from 0, and stores the encoder heads of a two-stage detector as those of one more decoder layer.
    """
    maps = len({name.split(".")[2] for name in weights if name.startswith("neck.convs.")})
    layers = len(
        {name.split(".")[3] for name in weights if name.startswith("transformer.decoder.layers.")}
    )
    encoder_head = re.compile(rf"^(?:transformer\.decoder\.)?(class|bbox)_embed\.{layers}\.")
    official: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        renamed = re.sub(
            r"^neck\.extra_convs\.(\d+)", lambda match: f"neck.convs.{int(match[1]) + maps}", name
        )
        renamed = encoder_head.sub(r"transformer.enc_out_\1_embed.", renamed)
        renamed = NAMES.right(renamed) or renamed
        agrees = renamed not in official or torch.equal(official[renamed], tensor)
        official[renamed if agrees else name] = tensor
    return official
