"""DAB-Deformable-DETR: queries are anchor boxes; each layer derives their position from them."""

from __future__ import annotations

from typing import Any

from od_detr.detectors.builders import initialise, make_backbone, make_encoder
from od_detr.detectors.sizes import Sizes
from od_detr.detectors.transformer import DetectionTransformer, FeatureExtractor
from od_detr.nn.decoder import Decoder, DecoderLayer
from od_detr.nn.heads import Heads
from od_detr.nn.neck import Neck
from od_detr.nn.position import AnchorPosition
from od_detr.nn.queries import AnchoredQueries

SIZES = Sizes()


def dab_deformable_detr(
    num_classes: int,
    backbone: str | FeatureExtractor = "resnet50",
    *,
    backbone_weights: str = "none",
    **changes: Any,
) -> DetectionTransformer:
    """DAB-Deformable-DETR (R50-v2): learned anchors; positions are scaled by the content.

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
        sizes.settings("dab-deformable-detr", num_classes, backbone),
        features,
        Neck(features.channels, sizes.hidden_dim, sizes.num_levels),
        make_encoder(sizes),
        AnchoredQueries(sizes.queries, sizes.hidden_dim),
        Decoder(
            [DecoderLayer(*sizes.layer) for _ in range(sizes.decoder_layers)],
            Heads(sizes.hidden_dim, num_classes, sizes.decoder_layers),
            AnchorPosition(sizes.hidden_dim, scaled=True),
            eps=1e-3,
        ),
    )
    return initialise(detector)
