"""All matchings of a distilled step against matching layer by layer and group by group, as the
public codes do.

A step on two images: the teacher's six layers and the student's six of 300 queries, and six
auxiliary groups of two queries a target, each through six layers. Predictions are those of a
trained detector in kind: every target has a few close queries, the others lie anywhere.
"""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_convert, generalized_box_iou

from benchmarks.host_reads import needs_the_host
from benchmarks.step import make_batch, small_detector
from benchmarks.timing import Figure, cost, interleaved, speedup
from od_detr.criteria import matching
from od_detr.criteria.matching import MatchCost, Matches, match
from od_detr.detectors import DetectionTransformer
from od_detr.nn import encoder
from od_detr.options import TrainOptions
from od_detr.structures import (
    Batch,
    GroupOutput,
    Matched,
    Predictions,
    QueryGroup,
    QuerySet,
    Targets,
)
from od_detr.training import recipe as recipe_module
from od_detr.training.recipe import make_recipe
from od_detr.training.teacher import Teacher

COST = MatchCost()


def measure(
    rounds: int = 40,
    layers: int = 6,
    queries: int = 300,
    targets: tuple[int, int] = (7, 60),
    classes: int = 80,
) -> dict[str, Figure]:
    """The figures of `od-detr benchmark matching`."""
    figures = {}
    for count, goal in zip(targets, (6.0, 3.0), strict=True):
        groups, truth = trained_like_step(layers, queries, count, classes)
        check_costs(groups, truth)
        seconds = interleaved(
            {
                "ours": lambda g=groups, t=truth: whole_step(g, t),
                "peer": lambda g=groups, t=truth: by_layer(g, t),
            },
            rounds,
        )
        figures[f"speedup_{count}_targets"] = speedup(seconds["ours"], seconds["peer"], goal)
    copies = sum(output.num_layers * output.group.blocks for output in groups)
    waits = exposed_waits(small_detector(), make_batch(2, 128, 8))
    figures["synchronisations"] = cost(waits, copies, 1, "waits for the device") | {
        "ratio": float(waits)
    }
    return figures


def trained_like_step(
    layers: int, queries: int, count: int, classes: int
) -> tuple[list[GroupOutput], Targets]:
    """Main groups of teacher and student, and auxiliary groups, of two images.

    Each image has `count` targets.
    """
    generator = torch.Generator().manual_seed(0)
    truth = make_batch(2, 1, classes, count).targets
    sizes = {"teacher": queries, "main": queries, "auxiliary": layers * 2 * count}
    return [
        predict(name, layers, size, truth, classes, generator) for name, size in sizes.items()
    ], truth


def predict(
    name: str, layers: int, queries: int, truth: Targets, classes: int, generator: torch.Generator
) -> GroupOutput:
    """Every target's box thrice in turn among the queries, at varying distance and confidence.

    The rest is noise.
    """
    images, count = len(truth.counts), truth.most
    blocks = layers if name == "auxiliary" else 1
    place = torch.arange(queries // blocks).repeat(blocks)
    close = (place < 3 * count)[:, None]
    wanted = truth.boxes.view(images, count, 4)[:, place % count]
    noise = torch.rand(layers, images, queries, 4, generator=generator)
    boxes = torch.where(close, wanted * (0.9 + 0.2 * noise), noise * 0.5 + 0.2)
    logits = torch.randn(layers, images, queries, classes, generator=generator) - 5
    label = truth.labels.view(images, count)[:, place % count, None].expand(layers, -1, -1, -1)
    sure = close * 4 * torch.rand(layers, images, queries, 1, generator=generator)
    logits.scatter_add_(-1, label, sure)
    content = torch.zeros(images, queries, 1)
    return GroupOutput(
        QueryGroup(name, QuerySet(content, torch.zeros(images, queries, 4)), blocks),
        (),
        Predictions(logits, boxes),
    )


def whole_step(groups: list[GroupOutput], truth: Targets) -> dict[str, Matched]:
    """The teacher's matching in a thread, then everything else at once.

    Of targets not seen before.
    """
    truth = replace(truth)
    teacher = Matches(groups[:1], truth, COST)
    return match(groups[1:], truth, COST) | teacher.result()


@torch.no_grad()
def by_layer(
    groups: list[GroupOutput], truth: Targets
) -> list[tuple[Tensor, np.ndarray, np.ndarray]]:
    """One layer of one group after the other.

    Per image, cost matrix (queries, its targets) and what was assigned.
    """
    assigned = []
    for output in groups:
        blocks = output.group.blocks
        for logits, boxes in zip(output.predictions.logits, output.predictions.boxes, strict=True):
            for few_logits, few_boxes in zip(
                logits.chunk(blocks, 1), boxes.chunk(blocks, 1), strict=True
            ):
                costs = layer_costs(few_logits, few_boxes, truth).cpu()
                for image, part in enumerate(costs.split(truth.counts, -1)):
                    assigned.append((part[image], *linear_sum_assignment(part[image])))
    return assigned


def layer_costs(logits: Tensor, boxes: Tensor, truth: Targets) -> Tensor:
    """Cost of every query against all targets of the batch: (images, queries, targets)."""
    scores, flat = logits.flatten(0, 1).sigmoid(), boxes.flatten(0, 1)
    negative = 0.75 * scores**2 * -(1 - scores + 1e-8).log()
    positive = 0.25 * (1 - scores) ** 2 * -(scores + 1e-8).log()
    classes = positive[:, truth.labels] - negative[:, truth.labels]
    distance = torch.cdist(flat, truth.boxes, p=1)
    overlap = generalized_box_iou(
        box_convert(flat, "cxcywh", "xyxy"), box_convert(truth.boxes, "cxcywh", "xyxy")
    )
    return (5 * distance + 2 * classes - 2 * overlap).view(*logits.shape[:2], -1)


def check_costs(groups: list[GroupOutput], truth: Targets) -> None:
    """Ours must assign every target, and at the total cost of scipy's optimum."""
    matched = whole_step(groups, truth)
    theirs = by_layer(groups, truth)
    optimum = sum(float(costs[rows, columns].sum()) for costs, rows, columns in theirs)
    ours, pairs = 0.0, 0
    for (view, query, target), costs in matched.values():
        ours += float(costs[view, truth.slot[target], query].double().sum())
        pairs += len(target)
    wanted = sum(len(rows) for _, rows, _ in theirs)
    if pairs != wanted or abs(ours - optimum) > 1e-4 * abs(optimum):
        raise AssertionError(
            f"{pairs} pairs at cost {ours}, but scipy's {wanted} pairs cost {optimum}"
        )


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for an accelerator, from the operators on the CPU.

    Counted are operators whose result the host needs (a number, a size), and solved matchings that
    are asked for when nothing has been queued since their costs were: then the copy of these costs
    is exposed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operators += 1
        self.count += needs_the_host(function, args)
        return function(*args, **(kwargs or {}))


def exposed_waits(detector: DetectionTransformer, batch: Batch) -> int:
    """Waits of a distilled step up to its losses; later ones, of the optimizer, are everyone's."""
    options = TrainOptions(data="", recipe="od")
    recipe, waits = make_recipe(options, detector, Teacher(detector)), Waits()

    class Watched(Matches):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            self.begun = waits.operators

        def result(self) -> dict[str, Matched]:
            waits.count += waits.operators == self.begun
            return super().result()

    # An accelerator is never asked whether anything is padded.
    asked = patch.object(encoder, "nothing_padded", lambda _: False)
    watched = [patch.object(module, "Matches", Watched) for module in (matching, recipe_module)]
    with watched[0], watched[1], asked, waits:
        recipe.losses(detector, batch)
    return waits.count


if __name__ == "__main__":
    for key, figures in measure().items():
        print(key, figures)
