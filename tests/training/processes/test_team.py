"""What a process does with those that it started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from od_detr.errors import InputError
from od_detr.ranks import Ranks
from od_detr.training.processes.launch import Team


def test_processes_that_wait_for_one_that_fails_before_they_connect_end_with_it() -> None:
    """As where a logger cannot be opened; they would wait for half an hour."""
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", deaf])
    team = Team(Ranks(rank=0, world_size=2), {1: child})
    with pytest.raises(InputError, match="--logger"), team.reporting():
        raise InputError("--logger wandb: no API key")
    assert child.poll() is not None
