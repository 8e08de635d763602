"""What an objective is: the query groups it adds, and the loss terms it computes from a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from od_detr.criteria.matching import Matches
from od_detr.structures import (
    GroupOutput,
    Matched,
    Outputs,
    QueryGroup,
    QuerySet,
    Targets,
    check_unique,
)

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Truth:
    """The ground truth of a step and the normaliser of its losses.

    `count` is the number of targets in the batch, averaged over all batches of the step, those of
    all ranks and those that each accumulates. All batches of a rank together count at least 1, so
    it may be below 1. Readings that divide by something else replace it by one number per layer.
    """

    targets: Targets
    count: Tensor | float


@dataclass(frozen=True)
class Taught:
    """The teacher's predictions while its matchings are still being solved."""

    outputs: Outputs
    matches: Matches


@dataclass(frozen=True)
class Answer:
    """What one detector predicts in a step, and the matchings of its groups."""

    outputs: Outputs
    matched: Mapping[str, Matched]

    def __getitem__(self, name: str) -> tuple[GroupOutput, Matched]:
        """A group's output and its matching.

        KeyError if the group is not there or has no matching.
        """
        return self.outputs[name], self.matched[name]


@dataclass(frozen=True)
class Step:
    """Everything that losses are computed from.

    `teacher` is None as long as nothing is distilled.
    """

    student: Answer
    teacher: Answer | None
    truth: Truth


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three losses of a matched prediction; `eps` is added to areas in the GIoU."""

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    eps: float = 0.0


@runtime_checkable
class Objective(Protocol):
    """One supervision of a detector. A recipe is a list of them."""

    @property
    def teacher_groups(self) -> tuple[str, ...]:
        """Names of the teacher's groups whose matching this objective needs."""
        ...

    def query_groups(
        self, queries: QuerySet, taught: Taught | None, targets: Targets
    ) -> list[QueryGroup]:
        """The query groups to decode besides the detector's own.

        Args:
            queries: the student's initial queries.
            taught: the teacher's predictions; None as long as nothing is distilled.
            targets: the ground truth.
        """
        ...

    def losses(self, step: Step) -> Terms:
        """Weighted terms named objective/term/layer, layers counted from 1.

        Their plain sum is the loss.
        """
        ...


def per_layer(
    name: str, per_view: Float[Tensor, " I"], output: GroupOutput, scale: Tensor | float
) -> Terms:
    """Sums a loss over the views of each layer, scales it and returns one term per layer."""
    sums = per_view.view(output.num_layers, -1).sum(1) * scale
    return {f"{name}/{layer}": value for layer, value in enumerate(sums.unbind(), 1)}


def sum_by_view(values: Float[Tensor, " M"], view: Tensor, views: int) -> Float[Tensor, " I"]:
    """Sums the values of each view."""
    return values.new_zeros(views).index_add(0, view, values)


def gather_pairs(
    boxes: Float[Tensor, "I q 4"], view: Tensor, query: Tensor
) -> Float[Tensor, "M 4"]:
    """Boxes of (view, query) pairs.

    Unlike that of plain indexing, its gradient is one scatter: cheap for few pairs.
    """
    return boxes.flatten(0, 1).index_select(0, view * boxes.shape[1] + query)


def joined(parts: Iterable[Terms]) -> Terms:
    """All terms in one dictionary.

    Raises:
        ValueError: two terms have the same name, so that one would silently replace the other.
    """
    terms = [term for part in parts for term in part.items()]
    check_unique((name for name, _ in terms), "loss term")
    return dict(terms)


def total(terms: Terms) -> Float[Tensor, ""]:
    """The loss: the plain sum of all terms."""
    return torch.stack(list(terms.values())).sum()
