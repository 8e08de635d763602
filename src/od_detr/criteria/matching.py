"""Bipartite matching of a whole step: all layers, images and groups with one copy to the host."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from od_detr.boxes import cxcywh_to_xyxy, overlaps
from od_detr.structures import GroupOutput, Matched, Matching, Targets
from od_detr.transfers import HostCopy, to_device_of

ALPHA, GAMMA = 0.25, 2.0
UNMATCHABLE = 1e6  # replaces a cost that is not finite
PAIRS_AT_ONCE = 2**16


@dataclass(frozen=True)
class MatchCost:
    """Weights of the matching cost: class, L1 and GIoU.

    `cost` "focal" is the cost of every DETR here; "stable" weighs the class score by position as
    Stable-DINO does. `eps` is added to the areas (1e-6 in DAB-DETR and DINO).
    """

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    cost: str = "focal"
    eps: float = 0.0


@torch.no_grad()
def pairwise_costs(
    output: GroupOutput, targets: Targets, cost: MatchCost
) -> Float[Tensor, "I G q"]:
    """Cost of every (target, query) pair of every view, one row per target.

    It is +inf for the padding of a group and nowhere else: a cost that is not finite, because a
    prediction is not, becomes `UNMATCHABLE`.
    """
    blocks, images = output.group.blocks, len(targets.counts)
    logits = output.views.logits.float().unflatten(0, (-1, images, blocks))
    boxes = output.views.boxes.float().unflatten(0, (-1, images, blocks))
    target_boxes, labels = targets.padded
    real = _real_pairs(output, targets) if cost.cost == "stable" else None
    # On a CPU a few layers at a time, so that intermediate results stay in its cache.
    pairs = images * targets.most * boxes[0, 0].shape[:-1].numel()
    few = max(1, PAIRS_AT_ONCE // max(1, pairs)) if boxes.device.type == "cpu" else len(boxes)
    chunks = zip(logits.split(few), boxes.split(few), strict=True)
    total = torch.cat(
        [_costs(*chunk, target_boxes, labels, real, cost) for chunk in chunks]
    ).flatten(0, 2)
    if output.group.padding is not None:
        padding = output.group.padding.unflatten(1, (blocks, -1)).flatten(0, 1)
        total = total.masked_fill(padding.repeat(output.num_layers, 1)[:, None], float("inf"))
    return total


def _costs(
    logits: Float[Tensor, "K B R q C"],
    boxes: Float[Tensor, "K B R q 4"],
    target_boxes: Float[Tensor, "B G 4"],
    labels: Int[Tensor, "B G"],
    real: Bool[Tensor, "B #R G #q"] | None,
    cost: MatchCost,
) -> Float[Tensor, "K B R G q"]:
    """Costs of some layers; position modulation compares with the `real` pairs only."""
    index = labels[None, :, None, None].expand(*logits.shape[:-1], -1)
    scores = logits.gather(-1, index).transpose(-1, -2).contiguous().sigmoid_()
    wanted = target_boxes[None, :, None].expand(*boxes.shape[:3], -1, -1)
    corners = _planar(cxcywh_to_xyxy(boxes))
    _, giou = overlaps(cxcywh_to_xyxy(wanted)[..., :, None, :], corners[..., None, :, :], cost.eps)
    if real is not None:
        scores = scores * _closeness(giou, real).sqrt()
    rest = 1 - scores
    negative = (rest + 1e-8).log_().mul_(scores**GAMMA)
    positive = (scores + 1e-8).log_().mul_(rest**GAMMA)
    total = (
        torch.cdist(wanted.flatten(0, 2), boxes.flatten(0, 2), p=1)
        .view_as(giou)
        .mul_(cost.l1_weight)
    )
    total.add_(giou, alpha=-cost.giou_weight)
    total.add_(positive, alpha=-cost.class_weight * ALPHA).add_(
        negative, alpha=cost.class_weight * (1 - ALPHA)
    )
    return total.nan_to_num_(UNMATCHABLE, UNMATCHABLE, UNMATCHABLE)


def _planar(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The same boxes, stored coordinate by coordinate for contiguous arithmetic."""
    return boxes.movedim(-1, 0).contiguous().movedim(0, -1)


def _closeness(
    giou: Float[Tensor, "K B R G q"], real: Bool[Tensor, "B #R G #q"]
) -> Float[Tensor, "K B R G q"]:
    """(GIoU + 1) / 2 of every pair, divided by that of its view's best real pair (Stable-DINO)."""
    closeness = ((giou + 1) / 2).nan_to_num(0.0).clamp(min=0)
    if closeness.numel() == 0:
        return closeness
    return closeness / (closeness * real).amax((-1, -2), keepdim=True).clamp(min=1e-8)


def _real_pairs(output: GroupOutput, targets: Targets) -> Bool[Tensor, "B #R G #q"]:
    """Which pairs have neither a padded target nor a padded query."""
    device = output.predictions.boxes.device
    counts = to_device_of(targets.counts, output.predictions.boxes, torch.long)
    real = (torch.arange(targets.most, device=device) < counts[:, None])[:, None, :, None]
    if output.group.padding is not None:
        real = real & ~output.group.padding.unflatten(1, (output.group.blocks, -1))[:, :, None]
    return real


def solve(costs: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Solves the assignment of every view.

    Queries of infinite cost are padding and never chosen. If the cheapest queries of a view's
    targets all differ, they are the optimum already; only the other views need the Hungarian
    algorithm.

    Args:
        costs: (I, G, q).
        counts: number of targets of each view, (I,).

    Returns:
        The query of every target, (I, G), -1 where there is none.
    """
    views, most, queries = costs.shape
    chosen = np.full((views, most), -1, dtype=np.int64)
    if most == 0 or queries == 0:
        return chosen
    real = np.arange(most) < counts[:, None]
    cheapest = costs.argmin(-1)
    possible = np.isfinite(costs.min(-1)) | ~real
    # Empty slots get query numbers of their own, so that they never collide.
    ranked = np.sort(np.where(real, cheapest, queries + np.arange(most)), axis=1)
    certain = (ranked[:, 1:] != ranked[:, :-1]).all(1) & possible.all(1)
    chosen[certain] = np.where(real, cheapest, -1)[certain]
    for view in np.flatnonzero(~certain):
        matrix = costs[view, : counts[view]]
        usable = np.flatnonzero(np.isfinite(matrix[0]))
        rows, columns = linear_sum_assignment(matrix[:, usable])
        chosen[view, rows] = usable[columns]
    return chosen


class Matches:
    """The matchings of several groups, being solved in a thread while the device goes on.

    `costs` can be used at once; `result()` waits for the solver.
    """

    _solver = ThreadPoolExecutor(1, thread_name_prefix="matching")

    def __init__(self, outputs: Iterable[GroupOutput], targets: Targets, cost: MatchCost) -> None:
        """Computes the costs of every group and hands them to the solver."""
        by_name = {output.group.name: output for output in outputs}
        self.costs = {
            name: pairwise_costs(output, targets, cost) for name, output in by_name.items()
        }
        # One copy to the host for all groups. The thread gets no predictions: it would keep them
        # alive.
        flat = [costs.flatten() for costs in self.costs.values()] or [targets.boxes.new_zeros(0)]
        copy = HostCopy(torch.cat(flat) if len(flat) != 1 else flat[0])
        shapes = [tuple(costs.shape) for costs in self.costs.values()]
        blocks = [output.group.blocks for output in by_name.values()]
        self._solved: Future[list[Matching]] = self._solver.submit(
            _solve_all, copy, shapes, blocks, targets.counts
        )

    def result(self) -> dict[str, Matched]:
        """The matched groups by name, on the device of their costs."""
        return {
            name: Matched(matching if costs.is_cpu else matching.to(costs.device), costs)
            for (name, costs), matching in zip(
                self.costs.items(), self._solved.result(), strict=True
            )
        }


def _solve_all(
    copy: HostCopy, shapes: list[tuple[int, ...]], blocks: list[int], counts: tuple[int, ...]
) -> list[Matching]:
    """Cuts the flat costs into groups and matches each."""
    sizes = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(copy.wait().numpy(), sizes[:-1])
    return [
        _matching_of(part.reshape(shape), count, counts)
        for part, shape, count in zip(parts, shapes, blocks, strict=False)
    ]


def _matching_of(costs: np.ndarray, blocks: int, counts: tuple[int, ...]) -> Matching:
    """Matches the views of one group, (layer, image, block), with the targets of their image."""
    per_block = np.repeat(np.array(counts, dtype=np.int64), blocks)
    starts = np.repeat(np.cumsum([0, *counts[:-1]], dtype=np.int64)[: len(counts)], blocks)
    layers = len(costs) // max(1, len(per_block))
    chosen = solve(costs, np.tile(per_block, layers))
    view, slot = np.nonzero(chosen >= 0)
    target = np.tile(starts, layers)[view] + slot
    return Matching(*(torch.from_numpy(part) for part in (view, chosen[view, slot], target)))


def match(outputs: Iterable[GroupOutput], targets: Targets, cost: MatchCost) -> dict[str, Matched]:
    """Matches every group that is supervised by a matching: known by construction, or Hungarian."""
    decoded = [output for output in outputs if output.group.matched]
    known = {
        output.group.name: Matched(output.group.matching)
        for output in decoded
        if output.group.matching is not None
    }
    hungarian = [output for output in decoded if output.group.matching is None]
    return known | (Matches(hungarian, targets, cost).result() if hungarian else {})
