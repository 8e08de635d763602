"""Whichever of two processes is killed, the other one ends, names it, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.training.rank_loss import POINTS, lose


@pytest.mark.slow
# Every rank at every point: `python -m tests.training.rank_loss`.
@pytest.mark.parametrize(("point", "victim"), zip(POINTS, (0, 1, 1, 0), strict=True))
def test_a_killed_rank_is_named_and_the_checkpoint_is_whole(
    point: str, victim: int, scenes: Path, tmp_path: Path
) -> None:
    """`lose` fails where a process is left behind."""
    found = lose(victim, point, 2, scenes, tmp_path / "run")
    assert found.names(victim), found
    assert found.intact
    assert not found.traceback
