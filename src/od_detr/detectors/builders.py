"""What every builder needs besides the parts themselves: a backbone, and the original initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from od_detr.detectors.transformer import DetectionTransformer, FeatureExtractor
from od_detr.nn.attention import DeformableAttention
from od_detr.nn.backbone import Backbone
from od_detr.nn.queries import SelectedQueries


def make_backbone(
    backbone: str | FeatureExtractor,
    strides: tuple[int, ...],
    weights: str,
    frozen: bool | None,
    options: Mapping[str, Any] | None,
) -> FeatureExtractor:
    """The timm model of that name; a module is taken as it is."""
    return (
        Backbone(backbone, strides, weights, frozen, options)
        if isinstance(backbone, str)
        else backbone
    )


def initialise(detector: DetectionTransformer) -> DetectionTransformer:
    """Xavier for every matrix of encoder and decoder but the heads, as the originals; then the attention's rays."""
    heads = {id(parameter) for parameter in detector.decoder.heads.parameters()}
    for module in (detector.encoder, detector.decoder):
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1 and id(parameter) not in heads and name != "level_embed":
                nn.init.xavier_uniform_(parameter)
    if isinstance(detector.queries, SelectedQueries):
        nn.init.xavier_uniform_(detector.queries.content.weight)
        nn.init.xavier_uniform_(detector.queries.project.weight)
    for module in detector.modules():
        if isinstance(module, DeformableAttention):
            module.reset_parameters()
    return detector
