"""NaN anywhere in a step: the step is skipped and counted, and saved weights stay finite."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import config
from safetensors.torch import load_file
from torch import Tensor, nn

from od_detr.checkpoints import load_checkpoint
from od_detr.data.scenes import render_scenes
from od_detr.detectors import DetectionTransformer
from od_detr.errors import Interrupted
from od_detr.options import EvalOptions, TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.fit import fit
from od_detr.training.module import Training
from od_detr.training.nonfinite.guard import all_finite
from od_detr.training.recipe import Recipe
from od_detr.training.supervised import Supervised

EPOCHS, STEPS = 2, 3
# Steps counted from 0: the first, middle and last one of an epoch and of the run.
MOMENTS = {
    "first step of the run": 0,
    "middle of an epoch": 1,
    "last step of an epoch": 2,
    "first step of an epoch, middle of the run": 3,
    "last step of the run": 5,
}
SMALLEST: dict[str, Any] = {
    "eval": EvalOptions(every=EPOCHS, samples=0),
    "logger": "csv",
    "epochs": EPOCHS,
    "image_size": 32,
    "batch_size": 2,
    "hidden_dim": 16,
    "feedforward": 16,
    "backbone_options": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]},
}
Poison = Callable[[Supervised, Callable[[], bool]], None]


def spoiled(value: Tensor) -> Tensor:
    """NaN everywhere. One box of a query that nothing matches would harm no loss."""
    return value * float("nan")


def output_of(module: nn.Module, due: Callable[[], bool]) -> None:
    module.register_forward_hook(lambda _, __, output: spoiled(output) if due() else None)


def gradient_of(weight: Tensor, due: Callable[[], bool]) -> None:
    weight.register_hook(lambda gradient: spoiled(gradient) if due() else None)


# The parts of a step, in its order: where a value becomes NaN.
PLACES: dict[str, Poison] = {
    "backbone": lambda net, due: output_of(
        [each for each in net.detector.backbone.modules() if isinstance(each, nn.Conv2d)][-1], due
    ),
    "encoder": lambda net, due: output_of(net.detector.encoder.layers[0].norm2, due),
    "decoder": lambda net, due: output_of(net.detector.decoder.layers[-1].norm3, due),
    "logits": lambda net, due: output_of(net.detector.decoder.heads.classes[-1], due),
    "boxes": lambda net, due: output_of(net.detector.decoder.heads.boxes[-1], due),
    "teacher": lambda net, due: output_of(net.teacher.detector.decoder.layers[-1].norm3, due),
    "gradient": lambda net, due: gradient_of(net.detector.decoder.heads.classes[0].weight, due),
}


class Poisoning:
    """Makes one value NaN at one step of every training, and asks it to stop after that step."""

    def __init__(self, patch: pytest.MonkeyPatch, place: str, step: int) -> None:
        self.place, self.wanted, self.step = place, step, -1
        self.patch, self.reached = patch, 0
        self._wrap(Training, "__init__", self.built)
        self._wrap(Training, "step", self.stepped)
        if place == "input":
            self._wrap(DetectionTransformer, "normalise", self.spoilt)
        if place == "loss":
            self._wrap(Recipe, "losses", self.with_bad_term)

    def _wrap(self, owner: type, name: str, wrapper: Callable[..., Any]) -> None:
        self.patch.setattr(owner, name, partial_method(wrapper, getattr(owner, name)))

    def due(self) -> bool:
        if self.step != self.wanted:
            return False
        self.reached += 1
        return True

    def built(self, original: Any, training: Training, *args: Any) -> None:
        original(training, *args)
        if self.place in PLACES:
            PLACES[self.place](training.network, self.due)

    def stepped(self, original: Any, training: Training, *args: Any) -> None:
        self.step = training.state.step
        original(training, *args)
        if self.step == self.wanted:
            signal.raise_signal(signal.SIGTERM)
        self.step = -1

    def spoilt(self, original: Any, *args: Any) -> Tensor:
        return spoiled(original(*args)) if self.due() else original(*args)

    def with_bad_term(self, original: Any, *args: Any) -> dict[str, Tensor]:
        terms = original(*args)
        return {name: spoiled(each) for name, each in terms.items()} if self.due() else terms


def partial_method(wrapper: Callable[..., Any], original: Any) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        return wrapper(original, self, *args)

    return method


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of two images, and one to validate on."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    render_scenes(folder, EPOCHS * STEPS, 1, 32, seed=0)
    return folder


@pytest.fixture
def make(
    data: Path, options: Callable[..., TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TrainOptions]:
    """Options of the smallest run, without event files, which take longer than its steps."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # shapes are other tests' affair
    return partial(options, data=str(data), **SMALLEST)


def finite(contents: Any) -> bool:
    if isinstance(contents, dict):
        return all(finite(each) for each in contents.values())
    return not isinstance(contents, Tensor) or all_finite([contents])


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("place", ["input", *PLACES, "loss"])
def test_nan_skips_its_step_and_never_reaches_what_is_saved(
    place: str, moment: str, make: Callable[..., TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, step = make(), MOMENTS[moment]
    with monkeypatch.context() as patch:
        poisoning = Poisoning(patch, place, step)
        with suppress(Interrupted):
            fit(chosen)
        assert poisoning.reached
    last = Path(chosen.output) / "last.ckpt"
    saved = load_checkpoint(RunFiles(last.parent)).contents
    rows = saved["run"]["rows"]
    assert saved["global_step"] == step + 1
    assert saved["run"]["guard"]["skipped"] + sum(row.get("train/skipped", 0) for row in rows) == 1
    assert finite({name: saved[name] for name in ("state_dict", "optimizer")})
    with monkeypatch.context() as patch:
        Poisoning(patch, "nowhere", step + 1)
        with pytest.raises(Interrupted):
            fit(make(epochs=EPOCHS + 1, resume=True))
    saved = load_checkpoint(RunFiles(last.parent)).contents
    assert saved["global_step"] == step + 2
    assert finite({name: saved[name] for name in ("state_dict", "optimizer")})
    best = last.parent / "best" / "model.safetensors"
    assert best.is_file() == (moment == "last step of the run")
    assert not best.is_file() or all_finite(load_file(best).values())
