"""The means of an epoch's loss terms."""

from __future__ import annotations

import pytest
import torch

from od_detr.training.record.epoch_log import EpochLog


def terms(loss: float, **others: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in {"loss": loss, **others}.items()}


def test_a_term_that_a_batch_lacks_counts_as_zero() -> None:
    log = EpochLog()
    log.add(terms(3.0, a=1.0, b=2.0))
    log.add(terms(1.0, a=1.0))
    assert log.means() == {"loss": 2.0, "a": 1.0, "b": 1.0}


def test_a_batch_that_is_not_finite_is_left_out() -> None:
    log = EpochLog()
    log.add(terms(float("nan"), a=float("nan")))
    log.add(terms(4.0, a=4.0))
    assert log.means() == {"loss": 4.0, "a": 4.0}


def test_it_goes_on_from_its_state() -> None:
    log, other = EpochLog(), EpochLog()
    log.add(terms(1.0))
    other.load_state_dict(log.state_dict())
    other.add(terms(2.0))
    assert other.means() == {"loss": pytest.approx(1.5)}
    assert log.means() == {"loss": 1.0}
    log.clear()
    assert log.means() == {}
