"""`config.yaml` holds the paths of a run from wherever it is continued."""

from __future__ import annotations

from pathlib import Path

import pytest

from od_detr.options import TrainOptions
from od_detr.training.record.run_config import plain_options


def test_paths_become_absolute_and_the_names_of_weights_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even beside folders of those names."""
    monkeypatch.chdir(tmp_path)
    for name in ("imagenet", "none", "weights.safetensors"):
        (tmp_path / name).mkdir()
    for given, kept in (
        ("imagenet", "imagenet"),
        ("none", "none"),
        ("weights.safetensors", str(tmp_path / "weights.safetensors")),
    ):
        options = plain_options(TrainOptions(data="imagenet", backbone_weights=given))
        assert options["backbone_weights"] == kept
        assert options["data"] == str(tmp_path / "imagenet")
