"""Denoising (DINO, section 3.3): noised ground truth must find its way back; its matching is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from od_detr.detectors import DetectionTransformer, Encoded
from od_detr.objectives.objective import Labels, Terms
from od_detr.objectives.set_prediction import SetPrediction
from od_detr.structures import Outputs, QueryGroup, Targets


@dataclass(frozen=True)
class Denoising:
    """The host's own denoising group, supervised by construction and never distilled."""

    prediction: SetPrediction = field(
        default_factory=lambda: SetPrediction("denoising", "denoising")
    )

    def query_groups(
        self,
        student: DetectionTransformer,
        scene: Encoded,
        taught: Outputs | None,
        targets: Targets,
    ) -> list[QueryGroup]:
        if student.denoising is None:
            raise ValueError(
                "this host has no denoising queries: leave Denoising out of its recipe"
            )
        return [student.denoising(targets, student.layers)]

    def losses(self, outputs: Outputs, taught: Outputs | None, labels: Labels) -> Terms:
        output = outputs["denoising"]
        return self.prediction.supervise(
            output, output.matching, labels, scale=1.0 / output.group.blocks
        )
