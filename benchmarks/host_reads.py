"""What the host reads from the device in a training step: each read makes it wait for all that is
queued.

On a GPU, CUDA's synchronisation debug mode reports every one and where it is. Elsewhere the
operators are counted whose result the host needs: a number or a size. Waiting for a recorded event
is not a read in this sense: the matching waits so, for a copy that was begun long before.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from od_detr.nn import encoder
from od_detr.transfers import HostCopy

DATA = os.path.join("od_detr", "data")  # samples are made on the host

BLOCKING = {
    getattr(torch.ops.aten, name)
    for name in (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "equal",
        "is_nonzero",
    )
}


def needs_the_host(function: Any, arguments: Any) -> bool:
    """Whether the host must know the operator's result, a number or a size, before it goes on."""
    by_mask = function is torch.ops.aten.index.Tensor and any(
        index is not None and index.dtype == torch.bool for index in arguments[1]
    )
    return by_mask or function.overloadpacket in BLOCKING


class Reads(TorchDispatchMode):
    """Counts operators whose result the host needs; `operators` counts all.

    `most` is the largest count of a watched step, `steps` how many were watched, `places` where
    reads are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.count = self.most = self.steps = 0
        self.places: set[str] = set()
        # By address, and kept alive: memory that is used again would pass for a copy.
        self.copied: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        if needs_the_host(func, args) and not self._on_host(args[0]):
            self.count += 1
            self.places.add(place())
        return func(*args, **(kwargs or {}))

    def _on_host(self, tensor: Any) -> bool:
        """Whether the tensor would be on the host too if the step ran on an accelerator."""
        return tensor.data_ptr() in self.copied or DATA in place()

    @contextmanager
    def knowing_copies(self) -> Iterator[None]:
        """Inside the block, what `HostCopy.wait` returns is known to be on the host."""
        wait = HostCopy.wait

        def known(copy: HostCopy) -> Tensor:
            tensor = wait(copy)
            self.copied[tensor.data_ptr()] = tensor
            return tensor

        with patch.object(HostCopy, "wait", known):
            yield


def place() -> str:
    """File and line that called PyTorch."""
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith("<")]
    outside = [
        frame
        for frame in frames
        if f"{os.sep}torch{os.sep}" not in frame.filename and frame.filename != __file__
    ]
    return f"{outside[-1].filename}:{outside[-1].lineno}"


@contextmanager
def reads_counted(device: str, reads: Reads | None = None) -> Iterator[Reads]:
    """Inside the block, every read is counted and its place in the source kept."""
    reads = reads or Reads()
    if device == "cuda":
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield reads
            finally:
                torch.cuda.set_sync_debug_mode(before)
        heard = [each for each in heard if "synchronizing CUDA" in str(each.message)]
        reads.count += len(heard)
        reads.places |= {f"{each.filename}:{each.lineno}" for each in heard}
        return
    # An accelerator is never asked whether anything is padded.
    asked = patch.object(encoder, "nothing_padded", lambda _: False)
    with asked, reads.knowing_copies(), reads:
        yield reads


@contextmanager
def watched_training_steps(device: str, skip: int) -> Iterator[Reads]:
    """Counts the reads of whole training steps, but for the first `skip`."""
    from od_detr.training.module import Training

    reads, step = Reads(), Training.step
    seen = 0

    def watched(training: Training, *arguments: Any, **named: Any) -> None:
        nonlocal seen
        seen += 1
        if seen <= skip:
            step(training, *arguments, **named)
            return
        before = reads.count
        with reads_counted(device, reads):
            step(training, *arguments, **named)
        reads.steps += 1
        reads.most = max(reads.most, reads.count - before)

    with patch.object(Training, "step", watched):
        yield reads
