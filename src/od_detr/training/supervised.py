"""A detector together with what supervises it: the part of training that has weights."""

from __future__ import annotations

from torch import nn

from od_detr.detectors import DetectionTransformer
from od_detr.objectives import Terms
from od_detr.structures import Batch
from od_detr.training.recipe import Recipe
from od_detr.training.setup.freezing import is_frozen
from od_detr.training.teacher import Teacher


class Supervised(nn.Module):
    """A detector and the recipe that supervises it: from a batch to its weighted loss terms.

    It is what distributed training wraps, and what `last.ckpt` holds the weights of: those of the
    detector and of the teacher that follows it.
    """

    def __init__(
        self, detector: DetectionTransformer, recipe: Recipe, teacher: Teacher | None
    ) -> None:
        super().__init__()
        self.detector, self.recipe, self.teacher = detector, recipe, teacher
        self.train()

    def train(self, mode: bool = True) -> Supervised:
        """As any module, but what `--freeze` took out of training stays in eval mode."""
        super().train(mode)
        for part in self.detector.children():
            if is_frozen(part):
                part.eval()
        return self

    def forward(self, batch: Batch, distil: bool = True) -> Terms:
        """Weighted loss terms of a batch; their sum is minimised.

        Args:
            batch: images and targets.
            distil: whether the teacher is consulted.
        """
        return self.recipe.losses(self.detector, batch, distil)
