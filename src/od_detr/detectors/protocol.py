"""What training asks of a detector, so that one from outside the package can be distilled too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from od_detr.objectives import Objective
from od_detr.structures import Batch, GroupOutput, Outputs, QueryGroup, QuerySet, Targets


@dataclass(frozen=True)
class Encoded:
    """An encoded batch, with the queries that decoding starts from.

    Args:
        memory: whatever the detector's own decoder attends to; no one else reads it.
        queries: the initial queries of the group "main".
        proposals: a two-stage detector's own predictions from the encoder, as the group "encoder".
        tokens: which memory tokens the initial queries were selected from, (B, Q); None without a
            selection.
    """

    memory: Any
    queries: QuerySet
    proposals: GroupOutput | None = None
    tokens: Any = None


@runtime_checkable
class QueryDetector(Protocol):
    """A detector that decodes groups of queries which do not see one another.

    It must also be a `torch.nn.Module`: the teacher is a copy of it. `DetectionTransformer` is the
    package's own.
    """

    @property
    def num_layers(self) -> int:
        """Number of decoder layers, K."""
        ...

    @property
    def num_queries(self) -> int:
        """Number of queries of the group "main"."""
        ...

    @property
    def top_k(self) -> int:
        """Number of detections per image."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that build the detector again, given its weights."""
        ...

    def stem(self, batch: Batch, shares: Literal["frozen", "backbone"] = "frozen") -> Any:
        """The part of the encoding that the student computes and its teacher is given.

        It is handed to `encode` of both unread; None if there is nothing to share.

        Args:
            batch: the images.
            shares: "frozen" for what both compute alike because its weights are frozen, "backbone"
                for the feature maps of the student's whole backbone.
        """
        ...

    def encode(self, batch: Batch, stem: Any = None, tokens: Any = None) -> Encoded:
        """Encodes a batch.

        Args:
            batch: the images.
            stem: the result of `stem`, of this detector or of one with the same frozen weights.
            tokens: `Encoded.tokens` of another detector, to select the same initial queries.
        """
        ...

    def decode(
        self, encoded: Encoded, groups: Iterable[QueryGroup] = (), detach_memory: bool = False
    ) -> Outputs:
        """Decodes the initial queries as the group "main", and further groups that "main" does not
        see.

        Args:
            encoded: the result of `encode`.
            groups: further groups.
            detach_memory: stop the gradient of groups that are not the detector's `own` at the
                memory.
        """
        ...

    def own_groups(self, targets: Targets) -> list[QueryGroup]:
        """Groups that the detector is always trained with, as DINO is with denoising queries."""
        ...

    def own_objectives(self, supervise: Callable[[str], Objective]) -> list[Objective]:
        """Supervision of the detector's own groups besides "main".

        `supervise` makes the recipe's supervision of the group of that name. A detector may return
        objectives of its own as well.
        """
        ...
