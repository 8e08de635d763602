"""A run whose step does not fit into memory goes on with smaller batches and as many images a step.

A device that holds two images is simulated: training on more of them raises what PyTorch raises.
"""

from __future__ import annotations

import json
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from tests.subset import first_images

from od_detr.detectors import DetectionTransformer
from od_detr.errors import FullMemoryError, Interrupted
from od_detr.options import TrainOptions
from od_detr.structures import Batch
from od_detr.training.fit import Run, fit
from od_detr.training.module import Training

Options = Callable[..., TrainOptions]
HELD = 2  # images


def hold(
    monkeypatch: pytest.MonkeyPatch, images: int = HELD, after: int = 0
) -> list[weakref.ref[DetectionTransformer]]:
    """Lets the device hold so many images from this step on; the detectors that it refused."""
    original, refused = Training.backward, []

    def backward(self: Training, batch: Batch, *rest: object) -> object:
        if len(batch.images) > images and self.state.step >= after:
            refused.append(weakref.ref(self.network.detector))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert all(detector() is None for detector in refused)  # their memory is free
        return original(self, batch, *rest)

    monkeypatch.setattr(Training, "backward", backward)
    return refused


def subset(data: Path, folder: Path, images: int) -> str:
    """A data set of the first images of another one's training split; returns its folder."""
    folder.mkdir()
    (folder / "images").symlink_to(data / "images")
    (folder / "val.json").symlink_to(data / "val.json")
    (folder / "train.json").write_text(json.dumps(first_images(data / "train.json", images)))
    return str(folder)


def measured(run: Run) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in run.rows]


@pytest.mark.slow
def test_the_run_is_that_of_the_smaller_batch(
    options: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = fit(options(output=str(tmp_path / "small"), epochs=1, batch_size=2, accumulate=4))
    capsys.readouterr()
    refused = hold(monkeypatch)
    run = fit(options(output=str(tmp_path / "run"), epochs=1, batch_size=8))
    said = capsys.readouterr().out
    assert len(refused) == 2
    assert [line for line in said.splitlines() if "memory is full" in line] == [
        f"The device's memory is full. Continuing with --batch-size {size} --accumulate {times}."
        for size, times in ((4, 2), (2, 4))
    ]
    config = yaml.safe_load((run.directory / "config.yaml").read_text())
    assert (config["batch_size"], config["accumulate"]) == (2, 4)
    assert "resume" not in config
    assert measured(run) == measured(small)


@pytest.mark.slow
def test_it_goes_on_from_where_it_was_saved(
    options: Options, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With batches of 2, the 3 images over would be half a step more.
    data = subset(scenes, tmp_path / "data", 11)
    first = fit(options(data=data, epochs=1, batch_size=4, output=str(tmp_path / "first")))
    hold(monkeypatch, after=3)
    run = fit(options(data=data, epochs=2, batch_size=4))
    assert [row["step"] for row in run.rows] == [2, 4]
    assert measured(run)[0] == measured(first)[0]


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 3])
def test_a_run_that_starts_from_a_detector_goes_on(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    start = fit(options(epochs=1, batch_size=4, output=str(tmp_path / "start"), recipe="baseline"))
    given = {"data", "output", "recipe", "image_size", "augment", "workers", "device"}
    chosen = {name: value for name, value in vars(options()).items() if name in given}
    refused = hold(monkeypatch, after=after)
    run = fit(TrainOptions(**chosen, init=str(start.directory), epochs=2, batch_size=4))
    assert [row["epoch"] for row in run.rows] == [1, 2]
    assert len(refused) == 1


def test_a_stop_that_was_asked_for_in_the_step_is_not_lost(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Training, "backward", backward)
    with pytest.raises(Interrupted, match="stopped; nothing was saved yet") as stopped:
        fit(options(epochs=1, batch_size=4))
    assert stopped.value.status == 143


def test_a_single_image_that_does_not_fit_is_one_line(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, images=0)
    with pytest.raises(FullMemoryError, match="--batch-size 1: the device's memory is full; give "):
        fit(options(epochs=1, batch_size=2))
