"""DAB-Deformable-DETR: queries are anchor boxes, from which their position is derived at every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from od_detr.detectors.builders import initialise, make_backbone
from od_detr.detectors.transformer import DetectionTransformer, FeatureExtractor
from od_detr.nn.decoder import Decoder, DecoderLayer
from od_detr.nn.encoder import Encoder, EncoderLayer
from od_detr.nn.heads import Heads
from od_detr.nn.neck import Neck
from od_detr.nn.position import AnchorPosition
from od_detr.nn.queries import AnchoredQueries


def dab_deformable_detr(
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
    feedforward: int = 2048,
    dropout: float = 0.0,
    queries: int = 300,
    top_k: int = 100,
) -> DetectionTransformer:
    """DAB-Deformable-DETR (R50-v2): learned anchors, positions derived from them and scaled by the content."""
    settings = {key: value for key, value in locals().items() if key != "backbone_weights"}
    features = make_backbone(backbone, strides, backbone_weights, backbone_frozen, backbone_options)
    shape = (hidden_dim, heads, num_levels, points, feedforward, dropout)
    detector = DetectionTransformer(
        settings | {"model": "dab-deformable-detr"},
        features,
        Neck(features.channels, hidden_dim, num_levels),
        Encoder([EncoderLayer(*shape) for _ in range(encoder_layers)], hidden_dim, num_levels),
        AnchoredQueries(queries, hidden_dim),
        Decoder(
            [DecoderLayer(*shape) for _ in range(decoder_layers)],
            Heads(hidden_dim, num_classes, decoder_layers),
            AnchorPosition(hidden_dim, scaled=True),
            eps=1e-3,
        ),
        top_k=top_k,
    )
    return initialise(detector)
