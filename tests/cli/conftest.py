"""A tiny trained run, and the command line as a function."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from od_detr.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    status: int
    out: str
    error: str

    @property
    def json(self) -> dict:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def od_detr(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def command(*arguments: object) -> Answer:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Answer(status, *capfd.readouterr())

    return command


@pytest.fixture(scope="session")
def trained(scenes: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, to be read only."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--data", str(scenes), "--output", str(run), "--epochs", "2", *tiny]) == 0
    return run
