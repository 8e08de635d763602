"""Means of an epoch's loss terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from od_detr import ranks


class EpochLog:
    """Sums the loss terms of an epoch on their device and gives their means over batches and ranks.

    A batch whose loss is not finite is left out of the means. Nothing here waits for the device
    before `means` is called.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.batches: Tensor | None = None

    @torch.no_grad()
    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Adds the terms of one batch, the one called "loss" being their sum."""
        values = torch.stack([term.detach() for term in terms.values()])
        counts = terms["loss"].isfinite()
        values = torch.where(counts, values, 0.0)
        for name in terms:
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(values[0])
        torch._foreach_add_([self.sums[name] for name in terms], list(values.unbind()))
        if self.batches is None:
            self.batches = torch.zeros_like(values[0])
        self.batches += counts

    def means(self) -> dict[str, float]:
        """The mean of each term over the epoch's batches, averaged over ranks.

        A rank that saw no object may lack some terms; they count as 0 there.
        """
        batches = 1.0 if self.batches is None else max(1.0, float(self.batches))
        own = {name: float(value) / batches for name, value in self.sums.items()}
        everywhere = ranks.gathered(own)
        names = dict.fromkeys(name for rank in everywhere for name in rank)
        return {
            name: sum(rank.get(name, 0.0) for rank in everywhere) / len(everywhere)
            for name in names
        }

    def clear(self) -> None:
        """Starts the next epoch."""
        self.sums, self.batches = {}, None

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, the mean over ranks: all of them call this, and go on from the same."""
        own = {"batches": self.batches} | self.sums
        # A tensor of a GPU would open that GPU on every rank that receives it.
        everywhere = ranks.gathered({n: v if v is None else v.cpu() for n, v in own.items()})
        names = dict.fromkeys(name for rank in everywhere for name in rank)
        sums = {name: _mean([rank.get(name) for rank in everywhere]) for name in names}
        return {"batches": sums.pop("batches"), "sums": sums}

    def load_state_dict(
        self, state: Mapping[str, Any], device: torch.device | str = "cpu", times: float = 1.0
    ) -> None:
        """Goes on from the sums of `state_dict`.

        Args:
            state: what was saved.
            device: where terms are summed from now on.
            times: batches a step now, for each batch a step then.
        """
        self.sums = {name: value.to(device) * times for name, value in state["sums"].items()}
        batches = state["batches"]
        self.batches = None if batches is None else batches.to(device) * times


def _mean(values: Sequence[Tensor | None]) -> Tensor | None:
    """The mean, where a rank that has none counts as 0."""
    known = [value for value in values if value is not None]
    if len(values) == 1 or not known:
        return values[0]
    return torch.stack(known).sum(0) / len(values)
