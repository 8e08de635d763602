"""When a run acts on a signal."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from od_detr.errors import Interrupted
from od_detr.training.processes.signals import StopSignal


@pytest.mark.usefixtures("signals_heard")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_is_noted_and_the_second_stops_at_once(name: str, status: int) -> None:
    number = getattr(signal, name)
    with StopSignal(Path("run")).listening() as stop:
        signal.raise_signal(number)
        assert stop.asked
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(number)
    assert caught.value.status == status


def test_what_can_be_repeated_is_not_finished_first() -> None:
    with StopSignal(Path("run")).listening() as stop:
        stop.anything_saved = True
        with pytest.raises(Interrupted, match=r"--resume --output run$"), stop.at_once():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted), stop.at_once():
            raise AssertionError("unreachable")


def test_nothing_stops_at_once_before_anything_is_saved() -> None:
    with StopSignal(Path("run")).listening() as stop, stop.at_once():
        signal.raise_signal(signal.SIGTERM)
    assert stop.asked
