"""Bipartite matching of whole steps: every layer, image and group at once, with one copy to the host."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from od_detr.boxes import cxcywh_to_xyxy, overlaps
from od_detr.structures import GroupOutput, Matching, Targets
from od_detr.transfers import HostCopy, to_device_of

ALPHA, GAMMA = 0.25, 2.0
UNMATCHABLE = 1e6  # what a cost that is not a number counts as
PAIRS_AT_ONCE = 2**16


@dataclass(frozen=True)
class MatchCost:
    """Weights of the matching cost: class, L1 and GIoU.

    `cost` "focal" is the cost of every DETR here; "stable" weighs the class score by position as Stable-DINO
    does. `eps` is added to the areas (1e-6 in DAB-DETR and DINO).
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
    """Cost of every (target, query) pair of every view, target-major; +inf for the padding of a group and only there.

    A cost that is not finite, as broken predictions have, counts as `UNMATCHABLE`.
    """
    blocks, images = output.group.blocks, len(targets.counts)
    logits = output.views.logits.float().unflatten(0, (-1, images, blocks))
    boxes = output.views.boxes.float().unflatten(0, (-1, images, blocks))
    target_boxes, labels = targets.padded
    real = _real_pairs(output, targets) if cost.cost == "stable" else None
    # A processor takes few layers at a time, so that what lies between the operations stays in its cache.
    pairs = images * targets.most * boxes[0, 0].shape[:-1].numel()
    few = max(1, PAIRS_AT_ONCE // max(1, pairs)) if boxes.device.type == "cpu" else len(boxes)
    chunks = zip(logits.split(few), boxes.split(few), strict=True)
    total = torch.cat(
        [_costs(*chunk, target_boxes, labels, real, cost) for chunk in chunks]
    ).flatten(0, 2)
    if output.group.padding is not None:
        padding = output.group.padding.unflatten(1, (blocks, -1)).flatten(0, 1)
        total = total.masked_fill(padding.repeat(output.layers, 1)[:, None], float("inf"))
    return total


def _costs(
    logits: Float[Tensor, "K B R q C"],
    boxes: Float[Tensor, "K B R q 4"],
    target_boxes: Float[Tensor, "B G 4"],
    labels: Int[Tensor, "B G"],
    real: Bool[Tensor, "B #R G #q"] | None,
    cost: MatchCost,
) -> Float[Tensor, "K B R G q"]:
    """Costs of some layers; `real` pairs are what position modulation compares with."""
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
    """The same boxes, each coordinate by itself in memory: arithmetic on one then runs along memory."""
    return boxes.movedim(-1, 0).contiguous().movedim(0, -1)


def _closeness(
    giou: Float[Tensor, "K B R G q"], real: Bool[Tensor, "B #R G #q"]
) -> Float[Tensor, "K B R G q"]:
    """(GIoU + 1) / 2 of every pair as a share of its view's best real one (Stable-DINO)."""
    closeness = ((giou + 1) / 2).nan_to_num(0.0).clamp(min=0)
    if closeness.numel() == 0:
        return closeness
    return closeness / (closeness * real).amax((-1, -2), keepdim=True).clamp(min=1e-8)


def _real_pairs(output: GroupOutput, targets: Targets) -> Bool[Tensor, "B #R G #q"]:
    """Pairs of which neither the target nor the query is padding."""
    device = output.predictions.boxes.device
    counts = to_device_of(targets.counts, output.predictions.boxes, torch.long)
    real = (torch.arange(targets.most, device=device) < counts[:, None])[:, None, :, None]
    if output.group.padding is not None:
        real = real & ~output.group.padding.unflatten(1, (output.group.blocks, -1))[:, :, None]
    return real


def solve(costs: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The query of every target of every view, (I, G) with -1 where there is none; least total cost in each view.

    Queries of infinite cost are padding and never chosen. If the cheapest queries of a view's targets all differ,
    they are the optimum; only the other views are solved.
    """
    views, most, queries = costs.shape
    chosen = np.full((views, most), -1, dtype=np.int64)
    if most == 0 or queries == 0:
        return chosen
    real = np.arange(most) < counts[:, None]
    cheapest = costs.argmin(-1)
    possible = np.isfinite(costs.min(-1)) | ~real
    # Empty slots count as queries of their own, so that they never collide.
    ranked = np.sort(np.where(real, cheapest, queries + np.arange(most)), axis=1)
    certain = (ranked[:, 1:] != ranked[:, :-1]).all(1) & possible.all(1)
    chosen[certain] = np.where(real, cheapest, -1)[certain]
    for view in np.flatnonzero(~certain):
        matrix = costs[view, : counts[view]]
        usable = np.flatnonzero(np.isfinite(matrix[0]))
        rows, columns = linear_sum_assignment(matrix[:, usable])
        chosen[view, rows] = usable[columns]
    return chosen


class PendingMatching:
    """Matchings being solved in a thread while the device goes on; whoever asks a group for its own waits."""

    _solver = ThreadPoolExecutor(1, thread_name_prefix="matching")

    def __init__(self, outputs: Sequence[GroupOutput], targets: Targets, cost: MatchCost) -> None:
        self.outputs, self.targets = list(outputs), targets
        for output in self.outputs:
            output.costs = pairwise_costs(output, targets, cost)
            output.pending = self.finish
        self.shapes = [tuple(output.costs.shape) for output in self.outputs]
        flat = [output.costs.flatten() for output in self.outputs]
        costs = torch.cat(flat) if len(flat) != 1 else flat[0]
        self.device = costs.device
        self.future: Future = self._solver.submit(self._solve, HostCopy(costs))

    def _solve(self, costs: HostCopy) -> list[Matching]:
        matchings, start, values = [], 0, costs.wait().numpy()
        for output, shape in zip(self.outputs, self.shapes, strict=True):
            stop = start + shape[0] * shape[1] * shape[2]
            matchings.append(self._match(values[start:stop].reshape(shape), output.group.blocks))
            start = stop
        return matchings

    def _match(self, costs: np.ndarray, blocks: int) -> Matching:
        counts = np.repeat(np.array(self.targets.counts, dtype=np.int64), blocks)
        starts = np.repeat(np.array(self.targets.starts, dtype=np.int64), blocks)
        repeats = len(costs) // max(1, len(counts))
        chosen = solve(costs, np.tile(counts, repeats))
        view, slot = np.nonzero(chosen >= 0)
        target = np.tile(starts, repeats)[view] + slot
        return Matching(*(torch.from_numpy(part) for part in (view, chosen[view, slot], target)))

    def finish(self) -> None:
        """Waits for the solver and sets every group's matching, on the device of its predictions."""
        for output, matching in zip(self.outputs, self.future.result(), strict=True):
            output.matching = matching if self.device.type == "cpu" else matching.to(self.device)


def begin_matching(outputs: Sequence[GroupOutput], targets: Targets, cost: MatchCost) -> None:
    """Sets the groups' costs now and their matchings as soon as a thread has solved them."""
    PendingMatching(outputs, targets, cost)


def match(outputs: Sequence[GroupOutput], targets: Targets, cost: MatchCost) -> None:
    """Sets `costs` and `matching` of every group that the Hungarian algorithm matches; the others keep their own."""
    for output in outputs:
        if output.group.matching is not None:
            output.matching = output.group.matching
    hungarian = [
        output for output in outputs if output.group.matched and output.group.matching is None
    ]
    if hungarian:
        PendingMatching(hungarian, targets, cost).finish()
