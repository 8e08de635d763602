"""Whole training steps: losses, backward, clipping, fused AdamW and, where there is one, the
teacher's update.

The distilled step (recipe `od`) is measured against the plain one (`baseline`) of the same
detector, and the plain one against transformers' Deformable-DETR with the same weights: the same
stem and first stage frozen (transformers freezes nothing of a timm backbone), the same frozen
norms, no dropout, its own loss on every layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.guard import guarded_step
from benchmarks.timing import Figure, cost, interleaved, speedup
from od_detr.architectures import ModelName
from od_detr.detectors import DetectionTransformer, build_detector
from od_detr.dotted import with_values
from od_detr.experiments.demo import demo_options
from od_detr.experiments.experiment import Experiment
from od_detr.integrations.weights.huggingface import NAMES, to_huggingface
from od_detr.objectives import total
from od_detr.options import SIZES, RecipeName, TrainOptions
from od_detr.structures import Batch, Targets
from od_detr.training.optimizer import make_optimizer
from od_detr.training.recipe import make_recipe
from od_detr.training.teacher import Teacher

MODEL: ModelName = "deformable-detr-plus"
SMALL_DETECTORS: dict[str, ModelName] = {
    "small_distilled_over_baseline": MODEL,
    "small_dab_distilled_over_baseline": "dab-deformable-detr",
    "small_dino_distilled_over_baseline": "dino-4scale",
}
TARGETS = 7  # COCO has 7.3 objects an image
Step = Callable[[], object]


def measure(
    rounds: int = 4,
    image_size: int = 320,
    batch_size: int = 2,
    small_batch_size: int = 16,
    **sizes: Any,
) -> dict[str, Figure]:
    """The figures of `od-detr benchmark step`; `sizes` are those of the large detector."""
    detector, batch = large_detector(**sizes), make_batch(batch_size, image_size, 80)
    steps = {
        recipe: training_step(copy.deepcopy(detector), batch, recipe)
        for recipe in ("od", "baseline")
    }
    seconds = interleaved(steps | {"transformers": transformers_step(detector, batch)}, rounds)
    small = {
        name: small_distilled(model, small_batch_size, 3 * rounds)
        for name, model in SMALL_DETECTORS.items()
    }
    flops = {recipe: count_flops(step) for recipe, step in steps.items()}
    return {
        "distilled_over_baseline": cost(seconds["od"], seconds["baseline"], 1.45),
        **small,
        "ideal_flops_ratio": cost(
            flops["od"], flops["baseline"], expected_flops_ratio(detector, batch), "FLOP"
        ),
        "throughput_over_transformers": speedup(seconds["baseline"], seconds["transformers"], 1.5),
        "guarded_over_unguarded": guarded_step(10 * rounds, batch_size=small_batch_size),
    }


def small_distilled(model: ModelName, batch_size: int, rounds: int) -> Figure:
    """The same of a host at the demo's size."""
    detector, batch = small_detector(model), make_batch(batch_size, 128, 8)
    steps = {
        recipe: training_step(copy.deepcopy(detector), batch, recipe, model)
        for recipe in ("od", "baseline")
    }
    seconds = interleaved(steps, rounds)
    return cost(seconds["od"], seconds["baseline"], 1.7)


def large_detector(**sizes: Any) -> DetectionTransformer:
    """Deformable-DETR+ on a ResNet-50 frozen as usual, with random weights and without dropout."""
    torch.manual_seed(0)
    return build_detector(MODEL, 80, **{"backbone_frozen": True, "dropout": 0.0, **sizes})


def small_detector(model: ModelName = MODEL) -> DetectionTransformer:
    """The demo's, or another host of its size."""
    torch.manual_seed(0)
    options = Experiment("", "", "od", model=model).options(demo_options(Path(), Path()))
    sizes = {name: getattr(options, name) for name in SIZES}
    return build_detector(
        model, 8, backbone=options.backbone, backbone_options=options.backbone_options, **sizes
    )


def make_batch(
    images: int, size: int | tuple[int, int], classes: int, targets: int = TARGETS
) -> Batch:
    """Noise without padding, square or of a height and a width, each image with that many boxes."""
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(0)
    count = images * targets
    boxes = torch.rand(count, 4, generator=generator) * 0.4 + torch.tensor([0.3, 0.3, 0.05, 0.05])
    labels = torch.randint(classes, (count,), generator=generator)
    pixels = torch.randint(256, (images, 3, height, width), dtype=torch.uint8, generator=generator)
    padding = torch.zeros(images, height, width, dtype=torch.bool)
    sizes = ((height, width),) * images
    return Batch(
        pixels, padding, Targets(boxes, labels, (targets,) * images), tuple(range(images)), sizes
    )


def training_step(
    detector: DetectionTransformer,
    batch: Batch,
    recipe_name: RecipeName,
    model: ModelName = MODEL,
    switches: Mapping[str, Any] | None = None,
) -> Step:
    """A step of ours, `switches` being further options by dotted names. A plain recipe has no
    teacher to update.
    """
    options = TrainOptions(data="", model=model, recipe=recipe_name)
    options = with_values(options, switches or {})
    teacher = Teacher(detector) if options.distils else None
    recipe = make_recipe(options, detector, teacher)
    optimizer = make_optimizer(detector.train(), options.opt, options.architecture)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        total(recipe.losses(detector, batch)).backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), options.opt.clip)
        optimizer.step()
        if teacher is not None:
            teacher.update(detector)

    return step


def transformers_step(detector: DetectionTransformer, batch: Batch) -> Step:
    """A step of transformers' model with the same weights, on images normalised beforehand."""
    model = to_huggingface(detector).train().to(batch.images.device)
    frozen = {
        NAMES.left(name) for name, weight in detector.named_parameters() if not weight.requires_grad
    }
    for name, weight in model.named_parameters():
        weight.requires_grad_(name not in frozen)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    ours = [weight for weight in detector.parameters() if weight.requires_grad]
    if sum(map(torch.numel, trainable)) != sum(map(torch.numel, ours)):
        raise AssertionError("transformers would train other weights than we do")
    model.config.auxiliary_loss = True
    optimizer = torch.optim.AdamW(trainable, lr=2e-4, weight_decay=1e-4, fused=True)
    images, mask = detector.normalise(batch.images, batch.padding), (~batch.padding).long()
    boxes, labels = (
        part.split(batch.targets.counts) for part in (batch.targets.boxes, batch.targets.labels)
    )
    wanted = [
        {"boxes": box, "class_labels": label} for box, label in zip(boxes, labels, strict=True)
    ]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(pixel_values=images, pixel_mask=mask, labels=wanted).loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 0.1)
        optimizer.step()

    return step


def count_flops(step: Step) -> int:
    """FLOPs of all convolutions and matrix products, forward and backward; sampling is not among
    them.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return counter.get_total_flops()


def expected_flops_ratio(detector: DetectionTransformer, batch: Batch) -> float:
    """What a distilled step should cost if nothing were computed twice, from FLOPs of single
    forward passes.

    A plain step costs the forward F and, for what is not frozen (F - S, with S the stem and the
    first stage), twice as much backward. The teacher adds F - S, since it shares the stem. A group
    of added queries costs its own forward thrice, and no projection of the memory: prediction
    distillation has as many queries as the detector, auxiliary groups two a target and layer, which
    attend within their block only.
    """
    detector = copy.deepcopy(detector).eval().requires_grad_(False)
    with torch.no_grad():
        normalised = detector.normalise(batch.images, batch.padding)
        stem = count_flops(lambda: detector.backbone.stem(normalised))
        forward = count_flops(lambda: detector(batch))
        encoded = detector.encode(batch)
        once = count_flops(lambda: detector.decode(encoded))
        queries = encoded.queries
        projections = (
            detector.num_layers * 2 * encoded.memory.tokens.numel() * queries.content.shape[-1]
        )
    added = (once - projections) * (1 + 2 * TARGETS * detector.num_layers / len(queries))
    return 1 + (forward - stem + 3 * added) / (3 * forward - 2 * stem)


if __name__ == "__main__":
    for key, figures in measure().items():
        print(key, figures)
