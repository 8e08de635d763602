"""What a run would cost, without training it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from od_detr.nn.backbone import create_features
from od_detr.options import TrainOptions
from od_detr.training.cost.batch import with_batch_size
from od_detr.training.cost.budget import within_budget
from od_detr.training.cost.estimate import Estimate, estimate
from od_detr.training.cost.memory import remedies
from od_detr.training.cost.passes import ASPECT, extrapolated, flops
from od_detr.training.display.start import memory_of, memory_used, opening_lines
from od_detr.training.plan import Parts, assembled, planned

# Images of 5:3, than which none is longer, take this times the memory of 4:3. A batch of wide and
# upright ones, which are padded to squares, takes more.
LONGEST_IMAGES = 1.25


@dataclass(frozen=True)
class Costs:
    """What a run would cost.

    Attributes:
        parts: the run; a backbone that would be downloaded has random weights.
        estimate: time and memory.
        flops: floating-point operations of detecting in one image at the test size.
    """

    parts: Parts
    estimate: Estimate
    flops: int

    @property
    def memory(self) -> int:
        """Bytes that the run takes where a batch has the longest images."""
        largest = replace(self.estimate, bytes=round(LONGEST_IMAGES * self.estimate.bytes))
        return memory_used(largest, self.parts.fabric.device)

    @property
    def fits(self) -> bool | None:
        """Whether the device's memory suffices for `memory`; None if it is not known."""
        present = memory_of(self.parts.fabric.device)
        return None if present is None else self.memory <= present

    def described(self) -> list[str]:
        """What training says before it starts, then FLOPs, and whether memory suffices."""
        options = self.parts.options
        present, fits = memory_of(self.parts.fabric.device), self.fits
        limit = "" if present is None else f" of {present / 1e9:.1f} GB"
        verdict = {None: "", True: ": suffices", False: ": does not suffice"}[fits]
        if present is not None and not fits:
            verdict += f"; give {remedies(options, self.memory / present)}"
        return [
            *opening_lines(self.parts, self.estimate),
            f"image:    {self.flops / 1e9:.1f} GFLOPs to detect in one of {options.short_side} px "
            "(4:3)",
            f"memory:   about {self.memory / 1e9:.1f}{limit or ' GB'} with the longest images"
            + verdict,
        ]

    def as_result(self) -> dict[str, Any]:
        """The same as plain data."""
        parts, options = self.parts, self.parts.options
        sizes = [(e.numel(), e.requires_grad) for e in parts.network.detector.parameters()]
        return {
            "images": len(parts.train),
            "validation_images": len(parts.val),
            "classes": list(parts.train.classes),
            "model": options.model,
            "backbone": options.backbone,
            "image_size": options.short_side,
            "device": str(parts.fabric.device),
            "devices": parts.plan.place.world_size,
            "epochs": options.total_epochs,
            "steps": parts.state.steps_per_epoch * options.total_epochs,
            "parameters": sum(size for size, _ in sizes),
            "trainable_parameters": sum(size for size, trains in sizes if trains),
            "flops_per_image": self.flops,
            "batch_bytes": self.estimate.bytes,
            "seconds": self.estimate.seconds,
            "memory_suffices": self.fits,
        }


def dry_run(options: TrainOptions) -> Costs:
    """Checks data and options, and works out what a run costs without training it.

    Raises:
        InputError: as `fit` with the same options.
    """
    plan = planned(options)
    new = plan.start is None and plan.checkpoint is None
    if new and options.backbone_weights == "imagenet":
        # Training would stop without them. They are in the cache then.
        more = dict(options.backbone_options or {})
        create_features(options.backbone_name, (32,), "imagenet", more)
    # Costs do not depend on weights. A file is checked.
    weights = "none" if options.backbone_weights == "imagenet" else options.backbone_weights
    blank = replace(plan.options, backbone_weights=weights, compile=False)
    pretrained = options.backbone_weights != "none"
    frozen = pretrained or None
    plan = with_batch_size(replace(plan, options=blank), frozen)
    parts = assembled(within_budget(plan, frozen), frozen)
    cost, detector = estimate(parts), parts.network.detector
    assert cost is not None  # nothing is compiled
    size = (blank.short_side, round(blank.short_side * ASPECT))
    return Costs(parts, cost, extrapolated(lambda small: flops(detector, small), size))
