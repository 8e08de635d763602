"""How large everything is: as on COCO, or in miniature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.step import make_batch
from od_detr.architectures import ModelName
from od_detr.detectors import DetectionTransformer, build_detector
from od_detr.structures import Batch

ARCHITECTURES: tuple[ModelName, ...] = (
    "deformable-detr-plus",
    "dab-deformable-detr",
    "dino-4scale",
)
PRESETS: tuple[ModelName, ...] = (*ARCHITECTURES, "dino-5scale")
RECIPES = ("baseline", "qfl", "md", "md+pd", "md+ag", "od")
TINY = {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}


@dataclass(frozen=True)
class Scale:
    """Sizes of all parts. Heights and widths are in pixels.

    Args:
        device: "cuda" or "cpu".
        attention: image whose memory the operator attends to.
        image: image of a training step and of inference.
        many: images of the large batch at inference.
        sizes: of the detector in times.
        rounds: how often each operator is timed, and `step_rounds` each step.
        evidence: flags of the trainings.
        scenes: training scenes, validation scenes and their size.
        recipes: those that are compared and trained.
        presets: architectures that are measured, DINO with 4 and with 5 scales.
        most_epochs: however much time is left.
    """

    device: str
    attention: tuple[int, int] = (800, 1333)
    image: tuple[int, int] = (800, 1066)
    many: int = 16
    sizes: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 10
    step_rounds: int = 5
    scenes: tuple[int, int, int] = (2000, 250, 256)
    recipes: tuple[str, ...] = RECIPES
    presets: tuple[ModelName, ...] = PRESETS
    evidence: Mapping[str, Any] = field(default_factory=dict)
    most_epochs: int = 48

    @property
    def quick(self) -> bool:
        """Whether everything is in miniature."""
        return self.rounds == 1

    @property
    def architectures(self) -> tuple[ModelName, ...]:
        """One preset of each architecture."""
        return tuple(name for name in ARCHITECTURES if name in self.presets)

    @property
    def cuda(self) -> bool:
        """Whether a GPU computes."""
        return self.device == "cuda"

    def detector(self, model: ModelName, **settings: Any) -> DetectionTransformer:
        """With a frozen ResNet-50, random weights and without dropout, on the device."""
        torch.manual_seed(0)
        settings = {"backbone_frozen": True, "dropout": 0.0, **self.sizes, **settings}
        return build_detector(model, 80, **settings).to(self.device)

    def batch(self, images: int) -> Batch:
        """Noise of `image` with seven objects each, on the device."""
        return make_batch(images, self.image, 80).to(self.device)


FULL_EVIDENCE = {
    "backbone": "resnet18",
    "hidden-dim": 128,
    "encoder-layers": 3,
    "decoder-layers": 4,
    "queries": 60,
    "feedforward": 512,
    "batch-size": 16,
    "opt.lr": 5e-4,
    "opt.warmup": 50,
    "precision": "bf16",
    "workers": 1,
}
QUICK_SIZES = {
    "backbone": "resnet18",
    "backbone_options": TINY,
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 12,
    "feedforward": 64,
}
QUICK_EVIDENCE = {
    "backbone": "resnet18",
    "backbone-options": '{"channels":[8,16,24,32],"layers":[1,1,1,1]}',
    "hidden-dim": 32,
    "encoder-layers": 1,
    "decoder-layers": 2,
    "queries": 12,
    "feedforward": 64,
    "batch-size": 4,
    "opt.lr": 5e-4,
    "precision": "32",
    "workers": 0,
}


def chosen(device: str, quick: bool) -> Scale:
    """The sizes for a call."""
    if not quick:
        return Scale(device, evidence=FULL_EVIDENCE)
    return Scale(
        device,
        attention=(64, 96),
        image=(96, 128),
        many=2,
        sizes=QUICK_SIZES,
        rounds=1,
        step_rounds=1,
        scenes=(8, 4, 64),
        recipes=("baseline", "od"),
        presets=ARCHITECTURES[:1],
        evidence=QUICK_EVIDENCE,
        most_epochs=2,
    )


def synchronise(device: str) -> None:
    """Waits for all that the device was given."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def arithmetic(name: str, device: str) -> Iterator[None]:
    """Computes in "32" (IEEE everywhere), "tf32" or "bf16" (autocast, the rest in TF32)."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if name == "32" else "high")
    torch.backends.cudnn.allow_tf32 = name != "32"
    try:
        with torch.autocast(device, torch.bfloat16, enabled=name == "bf16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
