"""DINO: mixed query selection, look forward twice, shared heads, contrastive denoising."""

from __future__ import annotations

from typing import Any

from torch import nn

from od_detr.detectors.builders import initialise, make_backbone, make_encoder
from od_detr.detectors.sizes import DinoSizes
from od_detr.detectors.transformer import DetectionTransformer, FeatureExtractor
from od_detr.errors import InputError
from od_detr.nn.decoder import Decoder, DecoderLayer
from od_detr.nn.denoising import DenoisingQueries
from od_detr.nn.heads import Heads
from od_detr.nn.neck import Neck
from od_detr.nn.position import AnchorPosition
from od_detr.nn.queries import SelectedQueries

SIZES = {
    4: DinoSizes(),
    5: DinoSizes(num_levels=5, strides=(4, 8, 16, 32)),
}


def dino(
    num_classes: int,
    backbone: str | FeatureExtractor = "resnet50",
    *,
    backbone_weights: str = "none",
    num_levels: int = 4,
    **changes: Any,
) -> DetectionTransformer:
    """DINO: anchors selected from the memory, content learned.

    With five levels the pyramid starts one backbone map earlier.

    The weights of detrex need `shared_heads=False, temperature=10000.0, half_pixel=True`.

    Args:
        num_classes: number of classes.
        backbone: the name of a timm model, or a module that is a `FeatureExtractor`.
        backbone_weights: "none" (random), "imagenet", or a safetensors file.
        num_levels: 4 or 5 feature levels.
        changes: fields of `DinoSizes` that differ from `SIZES[num_levels]`.

    Raises:
        InputError: sizes that are out of range, or a backbone that cannot be built.
    """
    if num_levels not in SIZES:
        raise InputError(f"num_levels {num_levels}: DINO has 4 or 5 levels")
    sizes = SIZES[num_levels].changed(**changes)
    features = make_backbone(backbone, sizes, backbone_weights)
    layers = [DecoderLayer(*sizes.layer) for _ in range(sizes.decoder_layers)]
    heads = Heads(
        sizes.hidden_dim, num_classes, sizes.decoder_layers, sizes.shared_heads, size_bias=0.0
    )
    position, norm = AnchorPosition(sizes.hidden_dim), nn.LayerNorm(sizes.hidden_dim)
    decoder = Decoder(layers, heads, position, norm, look_forward_twice=True, eps=1e-3)
    noise = (sizes.denoising, sizes.label_noise, sizes.box_noise)
    detector = DetectionTransformer(
        sizes.settings(f"dino-{num_levels}scale", num_classes, backbone),
        features,
        denoising=(
            DenoisingQueries(sizes.hidden_dim, num_classes, *noise) if sizes.denoising else None
        ),
        neck=Neck(features.channels, sizes.hidden_dim, num_levels),
        encoder=make_encoder(sizes, sizes.temperature, sizes.half_pixel),
        queries=SelectedQueries(sizes.queries, sizes.hidden_dim, num_classes),
        decoder=decoder,
    )
    return initialise(detector)
