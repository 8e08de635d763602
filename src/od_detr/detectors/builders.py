"""What every builder shares: the backbone, and the initialisation of the original code."""

from __future__ import annotations

from typing import Any

from torch import nn

from od_detr.detectors.sizes import Sizes
from od_detr.detectors.transformer import DetectionTransformer, FeatureExtractor
from od_detr.nn.attention import DeformableAttention
from od_detr.nn.backbone import Backbone
from od_detr.nn.encoder import Encoder, EncoderLayer
from od_detr.nn.queries import SelectedQueries


def make_backbone(backbone: str | FeatureExtractor, sizes: Sizes, weights: str) -> FeatureExtractor:
    """The timm model of that name with its weights; a module is taken as it is."""
    if not isinstance(backbone, str):
        return backbone
    return Backbone(backbone, sizes.strides, weights, sizes.backbone_frozen, sizes.backbone_options)


def make_encoder(sizes: Sizes, *position: Any) -> Encoder:
    """The encoder of these sizes; `position` are the arguments of its sines, see `Encoder`."""
    layers = [EncoderLayer(*sizes.layer) for _ in range(sizes.encoder_layers)]
    return Encoder(layers, sizes.hidden_dim, sizes.num_levels, *position)


def initialise(detector: DetectionTransformer) -> DetectionTransformer:
    """Initialises a new detector as the original code does.

    Every matrix of encoder and decoder but those of the heads is drawn from Xavier's uniform
    distribution. Deformable attention then sets its own sampling offsets (Deformable DETR,
    appendix A.2).
    """
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
