"""A small part of the crash test; `make crash-test` runs all of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.training.crash import Saver, kills_at_calls, random_kills, sound

from od_detr.run_files import RunFiles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes"),
]


def test_a_kill_at_any_moment_loses_and_tears_nothing(tmp_path: Path) -> None:
    found = random_kills(tmp_path, 30)
    assert found["kills"] == 30
    assert sound(found), found


def test_a_kill_at_a_call_loses_and_tears_nothing(tmp_path: Path) -> None:
    found = kills_at_calls(tmp_path, every=9)
    assert found["kills"] > 10
    assert sound(found), found


def test_the_crash_test_finds_what_is_lost_and_torn(tmp_path: Path) -> None:
    saver = Saver(RunFiles(tmp_path))
    saver.save(1)
    assert saver.faults(1) == []
    assert saver.faults(2) == ["lost last.ckpt", "lost best"]
    content = saver.files.last.read_bytes()
    saver.save(2)
    saver.files.last.write_bytes(content[:-1])
    assert "torn last.ckpt" in saver.faults(0)
