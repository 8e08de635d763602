"""The names of a run's files, and what counts as a run or a saved detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from od_detr.run_files import CONFIG_HEAD, RunFiles, is_saved_detector, saved_detector


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    files = RunFiles(tmp_path / "run")
    files.best.mkdir(parents=True)
    files.config.write_text(f"{CONFIG_HEAD}epochs: 2\n")
    files.best_weights.touch()
    files.best_config.write_text("{}")
    return files


def test_a_run_keeps_the_names_that_its_users_rely_on(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    paths = (files.config, files.metrics, files.last, files.best, files.tensorboard)
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["config.yaml", "metrics.csv", "last.ckpt", "best", "tensorboard"]
    assert files.best_weights == tmp_path / "best" / "model.safetensors"
    assert files.best_config == tmp_path / "best" / "config.json"


def test_a_run_and_its_best_folder_lead_to_the_same_files(run: RunFiles) -> None:
    assert RunFiles.of(run.directory) == RunFiles.of(run.best) == run
    assert saved_detector(run.directory) == saved_detector(run.best) == run.best


def test_a_saved_detector_need_not_belong_to_a_run(run: RunFiles, tmp_path: Path) -> None:
    moved = run.best.rename(tmp_path / "mine")
    assert saved_detector(moved) == moved
    assert is_saved_detector(moved)
    assert not is_saved_detector(run.directory)


@pytest.mark.parametrize("content", [None, "epochs: 2\n", ""])
def test_only_a_config_that_training_wrote_marks_a_run(run: RunFiles, content: str | None) -> None:
    assert run.is_run
    run.config.unlink()
    if content is not None:
        run.config.write_text(content)
    assert not run.is_run


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    assert not RunFiles(tmp_path / "notes").is_run
