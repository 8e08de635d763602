"""Weight names of the official code of Deformable-DETR, DAB-Deformable-DETR and DINO.

Deformable-DETR is the one with box refinement. The official state dicts store the heads of each
layer twice, under the detector and under its decoder, and DINO's shared heads once for each layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from od_detr.integrations.weights.weight_names import Renaming, mlp_names

Weights = dict[str, Tensor]

_SHARED = (
    ("backbone.0.body.", "backbone.features."),
    ("input_proj.{}.", "neck.projections.{}."),
    ("transformer.level_embed", "encoder.level_embed"),
    ("transformer.encoder.layers.{}.", "encoder.layers.{}."),
    ("transformer.decoder.layers.{}.", "decoder.layers.{}."),
    ("class_embed.{}.", "decoder.heads.classes.{}."),
    *mlp_names("bbox_embed.{}", "decoder.heads.boxes.{}", 3),
)
_DINO = Renaming(
    *_SHARED,
    ("transformer.tgt_embed.weight", "queries.content.weight"),
    ("transformer.enc_output.", "queries.project."),
    ("transformer.enc_output_norm.", "queries.norm."),
    ("transformer.enc_out_class_embed.", "queries.heads.classes.0."),
    *mlp_names("transformer.enc_out_bbox_embed", "queries.heads.boxes.0", 3),
    *mlp_names("transformer.decoder.ref_point_head", "decoder.position.embed", 2),
    ("transformer.decoder.norm.", "decoder.norm."),
    ("label_enc.weight", "denoising.labels.weight"),
)
NAMES: dict[str, Renaming] = {
    "deformable-detr-plus": Renaming(
        *_SHARED,
        ("query_embed.weight", "queries.embedding.weight"),
        ("transformer.reference_points.", "queries.reference_points."),
    ),
    "dab-deformable-detr": Renaming(
        *_SHARED,
        ("tgt_embed.weight", "queries.content.weight"),
        ("refpoint_embed.weight", "queries.anchors.weight"),
        *mlp_names("transformer.decoder.ref_point_head", "decoder.position.embed", 2),
        *mlp_names("transformer.decoder.query_scale", "decoder.position.scale", 2),
    ),
    "dino-4scale": _DINO,
    "dino-5scale": _DINO,
}
_ALIAS = re.compile(r"transformer\.decoder\.(?=(class|bbox)_embed\.)")


def from_official(weights: Mapping[str, Tensor], model: str) -> tuple[Weights, list[str]]:
    """Renames weights of the official code to ours.

    Returns:
        The weights under our names, and the names that have no counterpart in `model`. If the two
        copies of a head differ, the name of the second one is among them.
    """
    ours: Weights = {}
    left_over = []
    for name, tensor in weights.items():
        renamed = NAMES[model].right(_ALIAS.sub("", name))
        if renamed is None or (renamed in ours and not torch.equal(ours[renamed], tensor)):
            left_over.append(name)
        else:
            ours[renamed] = tensor
    return (_dino(ours) if model.startswith("dino") else ours), left_over


def to_official(weights: Mapping[str, Tensor], model: str) -> Weights:
    """Renames our weights to the official names, with heads repeated as in official files.

    Raises:
        ValueError: a weight has no official name.
    """
    official: Weights = {}
    layers = 1 + max(
        int(name.split(".")[2]) for name in weights if name.startswith("decoder.layers.")
    )
    for name, tensor in weights.items():
        head = re.fullmatch(r"(decoder\.heads\.(?:classes|boxes)\.)0(\..*)", name)
        shared = head is not None and f"{head[1]}1{head[2]}" not in weights
        for ours in (
            [f"{head[1]}{layer}{head[2]}" for layer in range(layers)] if head and shared else [name]
        ):
            renamed = NAMES[model].left(ours)
            if renamed is None:
                raise ValueError(f"'{name}' has no official name in {model}")
            official[renamed] = tensor
    inside = re.compile(r"(class|bbox)_embed\." if model.startswith("dino") else r"bbox_embed\.")
    return official | {
        f"transformer.decoder.{name}": official[name] for name in official if inside.match(name)
    }


def heads_are_one(weights: Mapping[str, Tensor]) -> bool:
    """Whether the heads of all decoder layers (under our names) hold the same numbers."""
    later = re.compile(r"(decoder\.heads\.(?:classes|boxes)\.)[1-9]\d*(\..*)")
    matches = [(name, match) for name in weights if (match := later.fullmatch(name))]
    return all(
        torch.equal(weights[name], weights.get(f"{match[1]}0{match[2]}", torch.empty(0)))
        for name, match in matches
    )


def _dino(weights: Weights) -> Weights:
    """Stores shared heads once, and gives the label embedding one row more than there are classes.

    Other rows of the embedding are never looked up, so no information is lost.
    """
    if heads_are_one(weights):
        later = re.compile(r"decoder\.heads\.(classes|boxes)\.[1-9]")
        weights = {name: tensor for name, tensor in weights.items() if not later.match(name)}
    labels, bias = (
        weights.get("denoising.labels.weight"),
        weights.get("decoder.heads.classes.0.bias"),
    )
    if labels is not None and bias is not None:
        rows = len(bias) + 1
        padding = labels.new_zeros(max(0, rows - len(labels)), labels.shape[1])
        weights["denoising.labels.weight"] = torch.cat([labels[:rows], padding])
    return weights
