"""Deformable-DETR+: iterative box refinement, one stage (Deformable DETR, section 4.1; the paper's Def-DETR+)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from od_detr.detectors.builders import initialise, make_backbone
from od_detr.detectors.transformer import DetectionTransformer, FeatureExtractor
from od_detr.nn.decoder import Decoder, DecoderLayer
from od_detr.nn.encoder import Encoder, EncoderLayer
from od_detr.nn.heads import Heads
from od_detr.nn.neck import Neck
from od_detr.nn.queries import PositionedQueries


def deformable_detr_plus(
    num_classes: int,
    backbone: str | FeatureExtractor = "resnet50",
    *,
    backbone_weights: str = "none",
    backbone_frozen: bool | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    strides: tuple[int, ...] = (8, 16, 32),
    num_levels: int = 4,
    hidden_dim: int = 256,
    heads: int = 8,
    points: int = 4,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    feedforward: int = 1024,
    dropout: float = 0.1,
    queries: int = 300,
    top_k: int = 100,
) -> DetectionTransformer:
    """Deformable-DETR with iterative refinement: learned positions, anchors that start as points.

    `backbone` is the name of a timm model, or a module with `channels`, `stem` and the maps as output.
    """
    settings = {key: value for key, value in locals().items() if key != "backbone_weights"}
    features = make_backbone(backbone, strides, backbone_weights, backbone_frozen, backbone_options)
    shape = (hidden_dim, heads, num_levels, points, feedforward, dropout)
    detector = DetectionTransformer(
        settings | {"model": "deformable-detr-plus"},
        features,
        Neck(features.channels, hidden_dim, num_levels),
        Encoder([EncoderLayer(*shape) for _ in range(encoder_layers)], hidden_dim, num_levels),
        PositionedQueries(queries, hidden_dim),
        Decoder(
            [DecoderLayer(*shape) for _ in range(decoder_layers)],
            Heads(hidden_dim, num_classes, decoder_layers),
        ),
        top_k=top_k,
    )
    return initialise(detector)
