"""DINO: mixed query selection, look forward twice, shared heads, contrastive denoising; 4 or 5 levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from od_detr.detectors.builders import initialise, make_backbone
from od_detr.detectors.transformer import DetectionTransformer, FeatureExtractor
from od_detr.nn.decoder import Decoder, DecoderLayer
from od_detr.nn.denoising import DenoisingQueries
from od_detr.nn.encoder import Encoder, EncoderLayer
from od_detr.nn.heads import Heads
from od_detr.nn.neck import Neck
from od_detr.nn.position import AnchorPosition
from od_detr.nn.queries import SelectedQueries


def dino(
    num_classes: int,
    backbone: str | FeatureExtractor = "resnet50",
    *,
    num_levels: int = 4,
    backbone_weights: str = "none",
    backbone_frozen: bool | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    strides: tuple[int, ...] | None = None,
    hidden_dim: int = 256,
    heads: int = 8,
    points: int = 4,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    feedforward: int = 2048,
    dropout: float = 0.0,
    queries: int = 900,
    top_k: int = 300,
    denoising: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
    shared_heads: bool = True,
    temperature: float = 20.0,
    half_pixel: bool = False,
) -> DetectionTransformer:
    """DINO: anchors selected from the memory, content learned. Five levels start one backbone map earlier.

    detrex's weights want `shared_heads=False, temperature=10000.0, half_pixel=True`."""
    strides = ((4, 8, 16, 32) if num_levels == 5 else (8, 16, 32)) if strides is None else strides
    settings = {key: value for key, value in locals().items() if key != "backbone_weights"}
    features = make_backbone(backbone, strides, backbone_weights, backbone_frozen, backbone_options)
    shape = (hidden_dim, heads, num_levels, points, feedforward, dropout)
    layers = [DecoderLayer(*shape) for _ in range(decoder_layers)]
    read = Heads(hidden_dim, num_classes, decoder_layers, shared_heads, size_bias=0.0)
    position, norm = AnchorPosition(hidden_dim), nn.LayerNorm(hidden_dim)
    decoder = Decoder(layers, read, position, norm, look_forward_twice=True, eps=1e-3)
    noise = (
        DenoisingQueries(hidden_dim, num_classes, denoising, label_noise, box_noise)
        if denoising
        else None
    )
    detector = DetectionTransformer(
        settings | {"model": "dino-5scale" if num_levels == 5 else "dino-4scale"},
        features,
        Neck(features.channels, hidden_dim, num_levels),
        Encoder(
            [EncoderLayer(*shape) for _ in range(encoder_layers)],
            hidden_dim,
            num_levels,
            temperature,
            half_pixel,
        ),
        SelectedQueries(queries, hidden_dim, num_classes),
        decoder,
        noise,
        top_k=top_k,
    )
    return initialise(detector)
