"""Deformable-DETR+: one stage with iterative box refinement (Deformable DETR, section 4.1).

OD-DETR's paper calls it Def-DETR+.
"""

from __future__ import annotations

from typing import Any

from od_detr.detectors.builders import initialise, make_backbone, make_encoder
from od_detr.detectors.sizes import Sizes
from od_detr.detectors.transformer import DetectionTransformer, FeatureExtractor
from od_detr.nn.decoder import Decoder, DecoderLayer
from od_detr.nn.heads import Heads
from od_detr.nn.neck import Neck
from od_detr.nn.queries import PositionedQueries

SIZES = Sizes(feedforward=1024, dropout=0.1)


def deformable_detr_plus(
    num_classes: int,
    backbone: str | FeatureExtractor = "resnet50",
    *,
    backbone_weights: str = "none",
    **changes: Any,
) -> DetectionTransformer:
    """Deformable-DETR with iterative refinement: learned positions, anchors that start as points.

    Args:
        num_classes: number of classes.
        backbone: the name of a timm model, or a module that is a `FeatureExtractor`.
        backbone_weights: "none" (random), "imagenet", or a safetensors file.
        changes: fields of `Sizes` that differ from `SIZES`.

    Raises:
        InputError: sizes that are out of range, or a backbone that cannot be built.
    """
    sizes = SIZES.changed(**changes)
    features = make_backbone(backbone, sizes, backbone_weights)
    detector = DetectionTransformer(
        sizes.settings("deformable-detr-plus", num_classes, backbone),
        features,
        Neck(features.channels, sizes.hidden_dim, sizes.num_levels),
        make_encoder(sizes),
        PositionedQueries(sizes.queries, sizes.hidden_dim),
        Decoder(
            [DecoderLayer(*sizes.layer) for _ in range(sizes.decoder_layers)],
            Heads(sizes.hidden_dim, num_classes, sizes.decoder_layers),
        ),
    )
    return initialise(detector)
