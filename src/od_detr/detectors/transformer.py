"""The detection transformer: the only module that joins the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from od_detr.boxes import cxcywh_to_xyxy
from od_detr.detectors.protocol import Encoded
from od_detr.nn.decoder import Decoder
from od_detr.nn.denoising import DenoisingQueries
from od_detr.nn.encoder import Encoder
from od_detr.nn.neck import Neck
from od_detr.nn.queries import AnchoredQueries, PositionedQueries, SelectedQueries
from od_detr.objectives import Objective
from od_detr.structures import Batch, Outputs, Predictions, QueryGroup, Targets
from od_detr.transfers import to_device_of


@runtime_checkable
class FeatureExtractor(Protocol):
    """What the network needs of its backbone; any module that has these attributes will do."""

    channels: list[int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def stem(self, images: Tensor) -> Tensor:
        """Output of the frozen part, which is the same for student and teacher."""
        ...

    def __call__(self, stem: Tensor) -> list[Tensor]:
        """Feature maps, fine to coarse, from what `stem` returned."""
        ...


@dataclass(frozen=True)
class Detections:
    """The best detections of every image, best first.

    Boxes are (x1, y1, x2, y2) in pixels of the original image.
    """

    boxes_xyxy: Float[Tensor, "B X 4"]
    scores: Float[Tensor, "B X"]
    labels: Int[Tensor, "B X"]


class DetectionTransformer(nn.Module):
    """Backbone, neck, encoder, queries and decoder, composed by the builders in this folder.

    `settings` are the builder's arguments: with them and the weights the network can be built
    again.
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
    ) -> None:
        super().__init__()
        # Whether norms are frozen is decided by the weights once, and must hold when the detector
        # is built again.
        self.settings: dict[str, Any] = settings | {
            "backbone_frozen": getattr(backbone, "frozen", False)
        }
        self.backbone, self.neck, self.encoder = backbone, neck, encoder
        self.queries, self.decoder, self.denoising = queries, decoder, denoising

    @property
    def top_k(self) -> int:
        """Detections kept of an image."""
        return self.settings["top_k"]

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return self.settings["num_classes"]

    @property
    def num_queries(self) -> int:
        """Number of queries of the group "main"."""
        return self.settings["queries"]

    @property
    def num_layers(self) -> int:
        """Number of decoder layers, K."""
        return len(self.decoder.layers)

    def normalise(self, images: Tensor, padding: Bool[Tensor, "B H W"]) -> Float[Tensor, "B 3 H W"]:
        """Scales uint8 RGB as the backbone expects and sets padding to 0.

        Float images are normalised already.
        """
        if images.is_floating_point():
            return images
        statistics = (self.backbone.mean, self.backbone.std)
        mean, std = (
            to_device_of(values, images, torch.float32)[:, None, None] for values in statistics
        )
        scaled = (images.float() / 255 - mean) / std
        # Channels last is the fastest layout for convolution and pooling, and that of the flattened
        # tokens.
        return scaled.masked_fill(padding[:, None], 0.0).contiguous(
            memory_format=torch.channels_last
        )

    def stem(
        self, batch: Batch, shares: Literal["frozen", "backbone"] = "frozen"
    ) -> Tensor | list[Tensor]:
        """What a teacher can be given of the student's backbone, see `QueryDetector.stem`."""
        stem = self.backbone.stem(self.normalise(batch.images, batch.padding))
        return self.backbone(stem) if shares == "backbone" else stem

    def encode(
        self,
        batch: Batch,
        stem: Tensor | list[Tensor] | None = None,
        tokens: Int[Tensor, "B Q"] | None = None,
    ) -> Encoded:
        """Memory and initial queries of a batch.

        Args:
            batch: images and padding.
            stem: the result of `stem`, computed here if None.
            tokens: memory tokens to select the initial queries from, as another detector did; None
                selects.
        """
        stem = self.stem(batch) if stem is None else stem
        features = stem if isinstance(stem, list) else self.backbone(stem)
        return self.encode_features(features, batch.padding, tokens)

    def encode_features(
        self,
        features: list[Float[Tensor, "B _c _h _w"]],
        padding: Bool[Tensor, "B H W"],
        tokens: Int[Tensor, "B Q"] | None = None,
    ) -> Encoded:
        """Like `encode`, from the backbone's feature maps."""
        memory = self.encoder(self.neck(features), padding)
        if isinstance(self.queries, SelectedQueries):
            queries, proposals, tokens = self.queries(memory, tokens)
            return Encoded(memory, queries, proposals, tokens)
        return Encoded(memory, self.queries(memory))

    def decode(
        self, encoded: Encoded, groups: Iterable[QueryGroup] = (), detach_memory: bool = False
    ) -> Outputs:
        """Decodes the initial queries as the group "main", and further groups that "main" does not
        see.

        All groups take one pass. With `detach_memory` the groups that are not the architecture's
        own take a second one, whose gradient stops at the memory.
        """
        groups = [QueryGroup("main", encoded.queries, own=True), *groups]
        attached = [group for group in groups if group.own or not detach_memory]
        detached = [group for group in groups if detach_memory and not group.own]
        outputs = self.decoder(attached, encoded.memory)
        if encoded.proposals is not None:
            outputs.append(encoded.proposals)
        if detached:
            memory = replace(encoded.memory, tokens=encoded.memory.tokens.detach())
            outputs += self.decoder(detached, memory)
        return Outputs.of(outputs)

    def own_groups(self, targets: Targets) -> list[QueryGroup]:
        """The denoising group, if the architecture has one."""
        return [] if self.denoising is None else [self.denoising(targets, self.num_layers)]

    def own_objectives(self, supervise: Callable[[str], Objective]) -> list[Objective]:
        """Supervision of the encoder's own predictions (two-stage) and of the denoising group."""
        names = ["encoder"] if isinstance(self.queries, SelectedQueries) else []
        names += ["denoising"] if self.denoising is not None else []
        return [supervise(name) for name in names]

    def forward(self, batch: Batch, groups: Iterable[QueryGroup] = ()) -> Outputs:
        """Encodes and decodes a batch."""
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
    corners, scores, labels = best_pairs(predictions, top_k)
    scale = to_device_of([[width, height, width, height] for height, width in sizes], corners)
    return Detections(corners * scale[:, None], scores, labels)


def best_pairs(
    predictions: Predictions, top_k: int
) -> tuple[Float[Tensor, "B X 4"], Float[Tensor, "B X"], Int[Tensor, "B X"]]:
    """Like `select_detections`, with boxes from 0 to 1: boxes (x1, y1, x2, y2), scores, labels."""
    scores, boxes = predictions.logits[-1].sigmoid(), predictions.boxes[-1]
    classes = scores.shape[-1]
    best, index = scores.flatten(1).topk(min(top_k, scores.shape[1] * classes), dim=1)
    corners = cxcywh_to_xyxy(boxes).gather(1, (index // classes)[..., None].expand(-1, -1, 4))
    return corners, best, index % classes
