"""The sound material that every hostile input is made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from jaxtyping import config
from tests.hostile.material import make_material


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a run of one epoch and a photo, to be copied."""
    return make_material(tmp_path_factory.mktemp("sound") / "material")


@pytest.fixture(autouse=True)
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user runs has none, and they cost most of the time."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)
