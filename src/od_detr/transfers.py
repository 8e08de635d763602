"""Copies between the host (the CPU) and a device.

Nothing else in the package copies without waiting.

A copy towards a device may run in the background: whatever uses it queues behind it. A copy towards
the host may not be read before it is complete, so it goes through `HostCopy`, or through `moved`,
which waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device_of(
    values: Tensor | Sequence[Any] | float, like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Copies a few numbers to the device of `like`, without waiting for that device.

    `torch.tensor(values, device=...)` would wait until the device has finished all queued work.

    Args:
        values: a tensor on the host, or numbers.
        like: the tensor whose device is wanted.
        dtype: dtype of the result if `values` is not a tensor; default that of `like`.
    """
    tensor = (
        values if isinstance(values, Tensor) else torch.tensor(values, dtype=dtype or like.dtype)
    )
    return tensor.to(like.device, non_blocking=like.is_cuda)


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on `device`; complete if that is the host, else perhaps still being copied."""
    if torch.device(device).type == "cpu":
        return HostCopy(tensor).wait()
    return tensor.to(device, non_blocking=True)


class HostCopy:
    """A tensor being copied to the CPU asynchronously. `wait()` blocks until the copy is complete.

    On the CPU it is the tensor itself, and nothing is copied.
    """

    def __init__(self, tensor: Tensor) -> None:
        """Starts the copy."""
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            tensor = pinned.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        self._tensor = tensor.cpu()  # other kinds of device are copied here, and waited for

    def wait(self) -> Tensor:
        """Blocks until the copy is complete and returns it."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor
