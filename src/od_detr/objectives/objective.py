"""What an objective is: the query groups it adds, and what it makes of their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from od_detr.detectors import DetectionTransformer, Encoded
from od_detr.structures import GroupOutput, Outputs, QueryGroup, Targets

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Labels:
    """The ground truth of a step and what losses are divided by.

    `count` is the number of targets in the batch, averaged over all ranks and at least 1; switches that divide by
    something else put one number per layer in its place.
    """

    targets: Targets
    count: Tensor | float


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three losses of a matched prediction; `eps` is added to areas in the GIoU."""

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    eps: float = 0.0


@runtime_checkable
class Objective(Protocol):
    """One supervision of the detector. A recipe is a list of them."""

    def query_groups(
        self,
        student: DetectionTransformer,
        scene: Encoded,
        taught: Outputs | None,
        targets: Targets,
    ) -> list[QueryGroup]:
        """The query groups to decode besides the main one.

        `scene` is what the student's encoder made of the batch; `taught` what its teacher predicts, None as long
        as nothing is distilled.
        """
        ...

    def losses(self, outputs: Outputs, taught: Outputs | None, labels: Labels) -> Terms:
        """Weighted terms, named objective/term/layer with layers counted from 1; their plain sum is the loss."""
        ...


def per_layer(
    name: str, per_view: Float[Tensor, " I"], output: GroupOutput, scale: Tensor | float
) -> Terms:
    """Sums a loss over the views of each layer, scaled, as one term per layer."""
    sums = per_view.view(output.layers, -1).sum(1) * scale
    return {f"{name}/{layer}": value for layer, value in enumerate(sums.unbind(), 1)}


def sum_by_view(values: Float[Tensor, " M"], view: Tensor, views: int) -> Float[Tensor, " I"]:
    """Sums what belongs to the same view."""
    return values.new_zeros(views).index_add(0, view, values)


def gather_pairs(
    boxes: Float[Tensor, "I Q 4"], view: Tensor, query: Tensor
) -> Float[Tensor, "M 4"]:
    """Boxes of (view, query) pairs; unlike fancy indexing its gradient is one scatter, cheap for few pairs."""
    return boxes.flatten(0, 1).index_select(0, view * boxes.shape[1] + query)


def total(terms: Terms) -> Float[Tensor, ""]:
    """The loss: the plain sum of all terms."""
    return torch.stack(list(terms.values())).sum()
