"""What a run's directory needs, and what it does without."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from od_detr.run_files import RunFiles
from od_detr.training.record.run_directory import RunDirectory

ROWS = [{"epoch": 1, "step": 3, "train/loss": 2.5}]


@pytest.fixture
def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain installation, without the extra `tensorboard`."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )


@pytest.mark.usefixtures("without_tensorboard")
def test_without_tensorboard_metrics_are_written_and_one_line_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = RunFiles(tmp_path)
    with RunDirectory(files, ["cat"], {}) as directory:
        directory.write_rows(ROWS)
    assert files.metrics.read_text().splitlines() == ["epoch,step,train/loss", "1,3,2.5"]
    assert not files.tensorboard.exists()
    (line,) = capsys.readouterr().out.splitlines()
    assert str(files.metrics) in line
    assert "od-detr[tensorboard]" in line


@pytest.mark.usefixtures("without_tensorboard")
def test_only_the_process_that_writes_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory(RunFiles(tmp_path), ["cat"], {}, writes=False) as directory:
        directory.write_rows(ROWS)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_with_tensorboard_there_are_event_files_and_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = RunFiles(tmp_path)
    with RunDirectory(files, ["cat"], {}) as directory:
        directory.write_rows(ROWS)
    assert list(files.tensorboard.glob("events.out.tfevents.*"))
    assert capsys.readouterr().out == ""
