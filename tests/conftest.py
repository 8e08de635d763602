"""Shared by all tests: one thread, small scenes, and the options of a run of seconds."""

from __future__ import annotations

import gc
import hashlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Before the package: jaxtyping's hook compiles again whatever the package is the first to import.
import scipy.optimize  # noqa: F401
import torch
import torch._dynamo
import torch.distributed
import torchvision  # noqa: F401
from jaxtyping import config

from od_detr.collector import collector_paused
from od_detr.data.scenes import render_scenes
from od_detr.options import EvalOptions, TrainOptions

if TYPE_CHECKING:
    from od_detr.detectors import DetectionTransformer, Encoded
    from od_detr.structures import Batch, Targets

TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "backbone_weights": "none",
    "backbone_options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]},
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 12,
    "feedforward": 64,
    "num_levels": 3,
    "image_size": 64,
    "batch_size": 4,
    "workers": 0,
    "device": "cpu",
    "eval": EvalOptions(samples=0),  # pictures take longer than the training
}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Half a million objects are imported; the garbage collector never searches them."""
    with collector_paused():
        yield
        gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `gpu` without a GPU; others give a reason, such as no Chromium."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Numbers do not depend on the machine's cores, and tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def slow_tests_check_no_shapes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training spends a quarter of its time on checks of shapes that shorter tests make too.

    `slow(shapes=True)` marks a test that makes them all the same.
    """
    slow = request.node.get_closest_marker("slow")
    if slow and not slow.kwargs.get("shapes"):
        monkeypatch.setattr(config, "jaxtyping_disable", True)


@pytest.fixture
def signals_heard() -> Iterator[None]:
    """A process that `nohup` started ignores SIGHUP, and so would the code that it tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def estimates() -> None:
    """Trainings estimate what they take before they start, as they do for users."""


@pytest.fixture(autouse=True)
def no_estimates(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of a tiny training is an estimate that only its first lines show.

    A test of these asks for `estimates`. That an estimate changes no number is a test of its own.
    """
    if "od_detr.training.fit" in sys.modules and "estimates" not in request.fixturenames:
        monkeypatch.setattr("od_detr.training.fit.estimate", lambda _: None)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 4 validation scenes of 64 pixels, to be read only."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    render_scenes(folder, 12, 4, 64, seed=0)
    return folder


@pytest.fixture(scope="session")
def sparse_scenes(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes, of which three training images have no objects."""
    folder = tmp_path_factory.mktemp("sparse")
    (folder / "images").symlink_to(scenes / "images")
    for split in ("train", "val"):
        content = json.loads((scenes / f"{split}.json").read_text())
        if split == "train":
            empty = {image["id"] for image in content["images"][:3]}
            kept = [each for each in content["annotations"] if each["image_id"] not in empty]
            content["annotations"] = kept
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """The options of a tiny run as flags of the command line."""
    flags = []
    for name, value in TINY.items():
        if name == "eval":
            flags += ["--eval.samples", str(value.samples)]
            continue
        text = str(value).replace("'", '"').replace(" ", "")
        flags += [f"--{name.replace('_', '-')}", text]
    return flags


@pytest.fixture
def options(scenes: Path, tmp_path: Path) -> Callable[..., TrainOptions]:
    """Makes the options of a tiny run into a folder of the test's own."""

    def make(**changes: Any) -> TrainOptions:
        chosen = {"data": str(scenes), "output": str(tmp_path / "run"), "epochs": 2}
        return TrainOptions(**chosen | TINY | changes)

    return make


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder and what is in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(name="fingerprint")
def fingerprint_of() -> Callable[[Path], dict[str, str]]:
    return fingerprint


# ---- small detectors; imported when a test asks for them, because they take a while to import ----


@pytest.fixture(scope="session")
def make_detector() -> Callable[..., DetectionTransformer]:
    """Makes detectors with a tiny backbone and perturbed weights."""
    from tests.small import small_detector

    return small_detector


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """Makes batches of small images with crowded objects."""
    from tests.small import small_batch

    return small_batch


@pytest.fixture(scope="session")
def make_targets() -> Callable[..., Targets]:
    """Makes crowded objects."""
    from tests.small import crowded_targets

    return crowded_targets


@pytest.fixture(scope="session")
def encoded_batches() -> Callable[[str], tuple[DetectionTransformer, Encoded]]:
    """Gives a detector of each architecture and a batch encoded by it."""
    from tests.small import encoded_batch

    return encoded_batch
