"""Between host and device, without either waiting for the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device_of(
    values: Tensor | Sequence[Any] | float, like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """A few numbers of the host on the device of `like`, in its dtype unless they have their own.

    They queue behind what the device is doing, where `torch.tensor(values, device=...)` would wait for all of it.
    """
    tensor = (
        values if isinstance(values, Tensor) else torch.tensor(values, dtype=dtype or like.dtype)
    )
    return tensor.to(like.device, non_blocking=like.is_cuda)


class HostCopy:
    """A tensor on its way to the host; only who calls `wait` waits for it. On the CPU it is the tensor itself."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            tensor = pinned.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        self._tensor = tensor.cpu()  # devices of other makers wait here

    def wait(self) -> Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._tensor
