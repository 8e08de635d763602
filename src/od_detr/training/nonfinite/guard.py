"""Watches for values that are not finite, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from od_detr import ranks
from od_detr.errors import NonFiniteError
from od_detr.transfers import HostCopy


@dataclass(frozen=True)
class _Pending:
    """A judged step whose verdict is still on its way to the host."""

    step: int
    image_ids: tuple[int, ...]
    found: HostCopy  # ranks where it is bad, that were asked to stop, that want to save; own loss


class FiniteGuard:
    """Decides on the device whether a step may be taken, and counts the skipped ones on the host.

    The decision is a tensor that the optimizer reads on the device (`take`). The host learns of it
    one step later, when the copy has arrived, so that no step waits for the device.

    Args:
        limit: skipped steps in a row after which the run stops.
    """

    def __init__(self, limit: int = 10) -> None:
        self.limit = limit
        self.skipped = 0
        self.in_a_row = 0
        self.stop_asked = False
        self.save_asked = False
        self.last_loss = math.nan
        self._pending: _Pending | None = None

    def judge(
        self,
        loss: Tensor,
        norm: Tensor,
        image_ids: tuple[int, ...],
        step: int,
        stop: bool = False,
        save: bool = False,
    ) -> Tensor:
        """Whether this step may be taken: 1 where loss and gradient are finite on all ranks, else
        0.

        Args:
            loss: the mean loss of the step's batches on this rank, a scalar.
            norm: the norm of its gradients, a scalar, the same on all ranks.
            image_ids: the step's images on this rank.
            step: number of the step.
            stop: whether this rank was asked to stop; all ranks learn of it with the verdict.
            save: whether this rank wants to save, likewise.
        """
        loss = loss.detach().float()
        bad = ~(loss.isfinite() & norm.isfinite())
        asked = (torch.full_like(bad, flag) for flag in (stop, save))
        flags = torch.stack([bad, *asked]).float()
        flags = ranks.summed_over_ranks(flags)
        self._pending = _Pending(step, image_ids, HostCopy(torch.cat([flags, loss[None]])))
        return (flags[0] == 0).float()

    def settle(self, weights: Iterable[Tensor]) -> str | None:
        """Reads the verdict of the last step judged; a line to show if that step was skipped.

        Raises:
            NonFiniteError: `limit` steps in a row were skipped, or `weights` are not finite.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        bad, stop, save, self.last_loss = pending.found.wait().tolist()
        self.stop_asked |= bool(stop)
        self.save_asked = bool(save)
        if not bad:
            self.in_a_row = 0
            return None
        self.skipped += 1
        self.in_a_row += 1
        found = ranks.gathered((math.isfinite(self.last_loss), pending.image_ids))
        loss_is_finite = all(each for each, _ in found)
        images = [i for each, ids in found if loss_is_finite or not each for i in ids]
        what = "gradient" if loss_is_finite else "loss"
        line = f"step {pending.step}: the {what} is not finite, images {images}"
        blamed = (pending.step, tuple(images))
        if not all_finite(weights):
            raise NonFiniteError(
                f"{line}; weights are not finite either, so training cannot go on", *blamed
            )
        if self.in_a_row >= self.limit:
            raise NonFiniteError(
                f"{line}; {self.in_a_row} steps in a row were skipped: lower --opt.lr, or give "
                "--precision 32 or bf16",
                *blamed,
            )
        return f"{line}; the step is skipped ({self.in_a_row} in a row)"

    def state_dict(self) -> dict[str, int]:
        """The counts; call `settle` before."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from the counts of `state_dict`."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]


class Statistics:
    """Running statistics of a network's batch norms, which change in the forward pass already.

    They are kept before a step and put back, on the device, where the step is not taken. Frozen
    norms have none.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = (each for each in network.modules() if isinstance(each, _NormBase))
        self._live = [buffer for norm in norms for buffer in norm.buffers()]
        self._kept = [torch.empty_like(buffer) for buffer in self._live]

    @torch.no_grad()
    def keep(self) -> None:
        """Copies them."""
        if self._live:
            torch._foreach_copy_(self._kept, self._live)

    @torch.no_grad()
    def put_back_unless(self, take: Tensor) -> None:
        """Puts back the copies where `take` (a scalar on the device) is 0."""
        for buffer, kept in zip(self._live, self._kept, strict=True):
            torch.where(take > 0, buffer, kept, out=buffer)


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all floating-point tensors are finite; waits for the device once."""
    floating = [each.detach() for each in tensors if each.is_floating_point() and each.numel()]
    if not floating:
        return True
    largest = torch._foreach_norm(floating, float("inf"))
    return bool(torch.stack([each.float() for each in largest]).isfinite().all())
