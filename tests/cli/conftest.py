"""Scenes, a tiny trained run, and the command line as a function."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from od_detr.cli import main
from od_detr.data.scenes import render_scenes

TINY = [
    "--backbone", "resnet18", "--backbone-weights", "none",
    "--backbone-options", '{"channels":[8,16,24,32],"layers":[1,1,1,1]}', "--hidden-dim", "32",
    "--encoder-layers", "1", "--decoder-layers", "2", "--queries", "12", "--feedforward", "64", "--num-levels", "3",
    "--image-size", "64", "--batch-size", "4", "--workers", "0", "--device", "cpu",
]  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    status: int
    out: str
    error: str

    @property
    def json(self) -> dict:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def od_detr(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def command(*arguments: object) -> Answer:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Answer(status, *capfd.readouterr())

    return command


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 4 validation scenes of 64 pixels."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    render_scenes(folder, 12, 4, 64, seed=0)
    return folder


@pytest.fixture(scope="session")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, to be read only."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--data", str(scenes), "--output", str(run), "--epochs", "2", *TINY]) == 0
    return run


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder and what is in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture
def tiny() -> list[str]:
    return list(TINY)


@pytest.fixture(name="fingerprint")
def fingerprint_of() -> Callable[[Path], dict[str, str]]:
    return fingerprint
