"""A worker that the system kills is one line, wherever the process hears of it."""

from __future__ import annotations

import pytest

from od_detr.errors import InputError
from od_detr.training.processes.workers import worker_loss_explained


def lose_a_worker_while_closing() -> None:
    try:
        raise InputError("what was said first")
    finally:
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed.")


def test_a_killed_worker_is_reported_on_one_line_and_other_errors_stay() -> None:
    with pytest.raises(InputError, match=r"one of the 2 .* died"), worker_loss_explained(2):
        lose_a_worker_while_closing()
    with pytest.raises(RuntimeError, match="another"), worker_loss_explained(2):
        raise RuntimeError("another")
