"""An evaluation reads the data as the run did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from od_detr.data.folders import choices_of
from od_detr.data.formats.choices import Choices
from od_detr.inference.evaluate import run_choices
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.record.run_config import write_config


def test_the_data_options_are_those_of_the_run(
    options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    chosen = options(
        val_fraction=0.4, group=r"v\d+", classes="a,b", difficult="keep", val_data=str(tmp_path)
    )
    run = tmp_path / "run"
    write_config(chosen, RunFiles(run).config)
    assert run_choices(run, Path(chosen.data)) == choices_of(chosen)
    elsewhere = run_choices(run, tmp_path / "other")
    assert elsewhere == replace(choices_of(chosen), val_data=None)


def test_a_saved_detector_without_a_run_has_the_defaults(tmp_path: Path) -> None:
    assert run_choices(tmp_path, tmp_path) == Choices()
