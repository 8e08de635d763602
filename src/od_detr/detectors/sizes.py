"""The sizes of a detector: a frozen value, checked when it is made."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from od_detr.errors import InputError

# Smallest and largest sensible values. The upper bounds keep a damaged config.json from filling
# memory.
LIMITS: dict[str, tuple[float, float]] = {
    "num_levels": (1, 8),
    "hidden_dim": (8, 8192),
    "heads": (1, 256),
    "points": (1, 64),
    "encoder_layers": (1, 100),
    "decoder_layers": (1, 100),
    "feedforward": (1, 65536),
    "dropout": (0, 1),
    "queries": (1, 100_000),
    "top_k": (1, 100_000),
    "denoising": (0, 100_000),
    "label_noise": (0, 1),
    "box_noise": (0, 10),
    "temperature": (1, 1e6),
}
AnySizes = TypeVar("AnySizes", bound="Sizes")
MAX_CLASSES = 100_000
MAX_PARAMETERS = 5_000_000_000


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What has to be known, with the backbone's name and the weights, to build a detector.

    Attributes:
        backbone_frozen: whether batch norms, stem and first stage of the backbone are frozen; None
            freezes them where pretrained weights are loaded.
        backbone_options: further sizes of the timm model, such as `{"depths": (1, 1, 1, 1)}`.
        strides: strides of the backbone's maps, fine to coarse.
        num_levels: number of levels of the feature pyramid; those beyond the maps are convolved.
        hidden_dim: width of the transformer.
        heads: attention heads, a divisor of `hidden_dim`.
        points: points that each head samples on each level.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        feedforward: width of the hidden layer in each feed-forward block.
        dropout: dropout probability in the transformer.
        queries: number of object queries.
        top_k: detections kept per image.

    Raises:
        InputError: a value outside its `LIMITS`, or values that do not fit each other.
    """

    backbone_frozen: bool | None = None
    backbone_options: Mapping[str, Any] | None = None
    strides: tuple[int, ...] = (8, 16, 32)
    num_levels: int = 4
    hidden_dim: int = 256
    heads: int = 8
    points: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 6
    feedforward: int = 2048
    dropout: float = 0.0
    queries: int = 300
    top_k: int = 100

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            low, high = LIMITS.get(name, (None, None))
            if low is not None and high is not None and not low <= value <= high:
                raise InputError(f"{name} {value}: must be from {low:g} to {high:g}")
        if self.hidden_dim % self.heads:
            raise InputError(
                f"hidden_dim {self.hidden_dim}: must be a multiple of the {self.heads} heads"
            )
        if not 1 <= len(self.strides) <= self.num_levels:
            raise InputError(
                f"num_levels {self.num_levels}: {len(self.strides)} maps, of strides "
                f"{reprlib.repr(self.strides)}, "
                "need at least as many levels"
            )
        if self.parameters > MAX_PARAMETERS:
            raise InputError(
                f"hidden_dim {self.hidden_dim} and feedforward {self.feedforward}: such a "
                "transformer "
                f"has {self.parameters:.1e} parameters; give smaller sizes"
            )

    @property
    def parameters(self) -> int:
        """Approximate number of parameters of the transformer, a lower bound."""
        layer = 2 * self.hidden_dim * (self.feedforward + self.hidden_dim)
        layers = self.encoder_layers + self.decoder_layers
        return layers * layer + self.queries * self.hidden_dim

    @property
    def layer(self) -> tuple[int, int, int, int, int, float]:
        """Arguments of a layer: (hidden_dim, heads, num_levels, points, feedforward, dropout)."""
        attention = (self.hidden_dim, self.heads, self.num_levels, self.points)
        return (*attention, self.feedforward, self.dropout)

    def changed(self: AnySizes, **values: Any) -> AnySizes:
        """The same sizes but for these; None leaves a value as it is."""
        return dataclasses.replace(
            self, **{name: value for name, value in values.items() if value is not None}
        )

    def settings(self, model: str, num_classes: int, backbone: Any) -> dict[str, Any]:
        """What `config.json` holds: all that is needed, with the weights, to build it again."""
        if not 1 <= num_classes <= MAX_CLASSES:
            raise InputError(f"num_classes {num_classes}: must be from 1 to {MAX_CLASSES}")
        return {"model": model, "num_classes": num_classes, "backbone": backbone, **vars(self)}


@dataclass(frozen=True, kw_only=True)
class DinoSizes(Sizes):
    """The sizes of a DINO.

    Attributes:
        denoising: denoising queries per image and block; 0 leaves denoising out.
        label_noise: probability that a denoising query's label is changed, twice over.
        box_noise: largest displacement of a denoising box, relative to its size.
        shared_heads: one class and one box head for all decoder layers.
        temperature: of the sine position encoding of the image.
        half_pixel: whether that encoding counts from the middle of a cell.
    """

    queries: int = 900
    top_k: int = 300
    denoising: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0
    shared_heads: bool = True
    temperature: float = 20.0
    half_pixel: bool = False
