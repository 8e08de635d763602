"""The detector: the only module that joins the parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from od_detr.boxes import cxcywh_to_xyxy
from od_detr.nn.decoder import Decoder
from od_detr.nn.denoising import DenoisingQueries
from od_detr.nn.encoder import Encoder, Memory
from od_detr.nn.neck import Neck
from od_detr.nn.queries import AnchoredQueries, PositionedQueries, SelectedQueries
from od_detr.structures import Batch, GroupOutput, Outputs, Predictions, QueryGroup, QuerySet
from od_detr.transfers import to_device_of


@runtime_checkable
class FeatureExtractor(Protocol):
    """What a detector asks of its backbone; any module will do that has these."""

    channels: list[int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def stem(self, images: Tensor) -> Tensor:
        """What a teacher with the same frozen weights need not compute again."""
        ...

    def __call__(self, stem: Tensor) -> list[Tensor]:
        """Feature maps, fine to coarse, from what `stem` returned."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A batch as the encoder understood it, with the queries the host starts from.

    A two-stage host also has the encoder's own predictions (`proposals`) and the memory tokens its queries
    were selected from (`tokens`).
    """

    memory: Memory
    queries: QuerySet
    proposals: GroupOutput | None = None
    tokens: Int[Tensor, "B Q"] | None = None


@dataclass(frozen=True)
class Detections:
    """The best detections of every image, best first. Boxes are (x1, y1, x2, y2) in pixels of the original image."""

    boxes_xyxy: Float[Tensor, "B T 4"]
    scores: Float[Tensor, "B T"]
    labels: Int[Tensor, "B T"]


class DetectionTransformer(nn.Module):
    """Backbone, neck, encoder, queries, decoder; composed by the builders beside this file.

    `settings` are the builder's arguments: what is needed, with the weights, to build the detector again.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        backbone: FeatureExtractor,
        neck: Neck,
        encoder: Encoder,
        queries: PositionedQueries | AnchoredQueries | SelectedQueries,
        decoder: Decoder,
        denoising: DenoisingQueries | None = None,
        top_k: int = 100,
    ) -> None:
        super().__init__()
        # Whether norms are frozen is decided by the weights once, and must hold when the detector is built again.
        self.settings: dict[str, Any] = settings | {
            "backbone_frozen": getattr(backbone, "frozen", False)
        }
        self.backbone, self.neck, self.encoder = backbone, neck, encoder
        self.queries, self.decoder, self.denoising = queries, decoder, denoising
        self.top_k = top_k

    @property
    def num_classes(self) -> int:
        return self.settings["num_classes"]

    @property
    def num_queries(self) -> int:
        return self.settings["queries"]

    @property
    def layers(self) -> int:
        """Number of decoder layers, K."""
        return len(self.decoder.layers)

    def normalise(self, images: Tensor, padding: Bool[Tensor, "B H W"]) -> Float[Tensor, "B 3 H W"]:
        """uint8 RGB to the backbone's scale, padding to 0; float images are taken as normalised already."""
        if images.is_floating_point():
            return images
        statistics = (self.backbone.mean, self.backbone.std)
        mean, std = (
            to_device_of(values, images, torch.float32)[:, None, None] for values in statistics
        )
        scaled = (images.float() / 255 - mean) / std
        # Channels last is what convolution and pooling are fastest with, and what the flattened tokens are.
        return scaled.masked_fill(padding[:, None], 0.0).contiguous(
            memory_format=torch.channels_last
        )

    def stem(self, batch: Batch) -> Tensor:
        """What the backbone's frozen part makes of a batch: the same for a teacher, which can be given it."""
        return self.backbone.stem(self.normalise(batch.images, batch.padding))

    def encode(
        self, batch: Batch, stem: Tensor | None = None, tokens: Int[Tensor, "B Q"] | None = None
    ) -> Encoded:
        """Memory and initial queries of a batch. `tokens`, of another detector's scene, are those to start from."""
        features = self.backbone(self.stem(batch) if stem is None else stem)
        return self.encode_features(features, batch.padding, tokens)

    def encode_features(
        self,
        features: list[Float[Tensor, "B _c _h _w"]],
        padding: Bool[Tensor, "B H W"],
        tokens: Int[Tensor, "B Q"] | None = None,
    ) -> Encoded:
        """As `encode`, from the backbone's maps."""
        memory = self.encoder(self.neck(features), padding)
        if isinstance(self.queries, SelectedQueries):
            queries, proposals, tokens = self.queries(memory, tokens)
            return Encoded(memory, queries, proposals, tokens)
        return Encoded(memory, self.queries(memory))

    def decode(self, scene: Encoded, groups: Iterable[QueryGroup] = ()) -> Outputs:
        """Decodes the host's own queries ("main") and further groups, none of which the main group sees."""
        main = QueryGroup("main", scene.queries)
        outputs = self.decoder([main, *groups], scene.memory)
        if scene.proposals is not None:
            outputs["encoder"] = scene.proposals
        return Outputs(outputs)

    def forward(self, batch: Batch, groups: Iterable[QueryGroup] = ()) -> Outputs:
        return self.decode(self.encode(batch), groups)

    def detect(self, batch: Batch) -> Detections:
        """Final detections of a batch, scaled to `batch.sizes`."""
        return select_detections(self(batch)["main"].predictions, batch.sizes, self.top_k)


def select_detections(
    predictions: Predictions, sizes: Iterable[tuple[int, int]], top_k: int
) -> Detections:
    """The `top_k` best (query, class) pairs of the last layer; no suppression of any kind.

    `sizes` are (height, width) in pixels.
    """
    scores, boxes = predictions.logits[-1].sigmoid(), predictions.boxes[-1]
    classes = scores.shape[-1]
    best, index = scores.flatten(1).topk(min(top_k, scores.shape[1] * classes), dim=1)
    corners = cxcywh_to_xyxy(boxes).gather(1, (index // classes)[..., None].expand(-1, -1, 4))
    scale = to_device_of([[width, height, width, height] for height, width in sizes], boxes)
    return Detections(corners * scale[:, None], best, index % classes)
