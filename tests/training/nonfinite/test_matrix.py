"""NaN anywhere in a step: the step is skipped and counted, and saved weights stay finite."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.conftest import TINY
from torch import Tensor, nn

from od_detr.checkpoints import load_checkpoint
from od_detr.data.scenes import render_scenes
from od_detr.detectors import DetectionTransformer
from od_detr.errors import Interrupted
from od_detr.options import EvalOptions, TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.fit import fit
from od_detr.training.loop import Loop
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
# Each moment belongs to one run. Between two of them is a step that must succeed.
CHAINS = ((0, 2), (1, 3, 5))
SMALLEST: dict[str, Any] = {
    "eval": EvalOptions(every=EPOCHS, samples=0),
    "logger": "csv",
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


def finite(contents: Any) -> bool:
    if isinstance(contents, dict):
        return all(finite(each) for each in contents.values())
    return not isinstance(contents, Tensor) or all_finite([contents])


@dataclass(frozen=True)
class Saved:
    """What was found on the disk after a save.

    Attributes:
        finite: whether all weights and moments in the checkpoint are.
        skipped: steps that were skipped so far.
        best: whether all weights in `best/` are finite; None if it is not there.
    """

    finite: bool
    skipped: int
    best: bool | None


def saved_by(run: Path) -> tuple[int, Saved]:
    """What the newest checkpoint holds, and after how many steps."""
    contents = load_checkpoint(RunFiles(run)).contents
    skipped = sum(row.get("train/skipped", 0) for row in contents["run"]["rows"])
    best = run / "best" / "model.safetensors"
    return contents["global_step"], Saved(
        finite({name: contents[name] for name in ("state_dict", "optimizer")}),
        contents["run"]["guard"]["skipped"] + skipped,
        all_finite(load_file(best).values()) if best.is_file() else None,
    )


def chain(place: str, poisoned: tuple[int, ...], data: Path, run: Path) -> dict[int, Saved]:
    """Trains until each poisoned step in turn, is stopped after it and resumed.

    Returns:
        what was saved, by the number of steps before; one step more is taken in the end.
    """
    found: dict[int, Saved] = {}
    options: dict[str, Any] = TINY | SMALLEST | {"data": str(data), "output": str(run)}
    for step in (*poisoned, poisoned[-1] + 1):
        options["epochs"] = max(EPOCHS, step // STEPS + 1)
        with pytest.MonkeyPatch.context() as patch:
            where = place if step in poisoned else "nowhere"
            poisoning = Poisoning(patch, where, step)
            save = Loop.save

            def recorded(loop: Loop, save: Callable[[Loop], None] = save) -> None:
                save(loop)
                found.update([saved_by(run)])

            patch.setattr(Loop, "save", recorded)
            patch.setattr(Loop, "save_due", True)
            with suppress(Interrupted):
                fit(TrainOptions(**options, resume=bool(found)))
        assert saved_by(run)[0] == step + 1, "it did not stop after the step"
        assert poisoning.reached or where == "nowhere"
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[int, Saved]]:
    """What a place's chain of runs saved; each is trained once."""
    data = tmp_path_factory.mktemp("data") / "scenes"
    render_scenes(data, EPOCHS * STEPS, 1, 32, seed=0)
    return cache(
        lambda place, poisoned: chain(place, poisoned, data, tmp_path_factory.mktemp("chain"))
    )


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("place", ["input", *PLACES, "loss"])
def test_nan_skips_its_step_and_never_reaches_what_is_saved(
    place: str, moment: str, saved: Callable[..., dict[int, Saved]]
) -> None:
    """The run goes on after the step, is resumed, and its next step is saved too."""
    step = MOMENTS[moment]
    poisoned = next(each for each in CHAINS if step in each)
    found = saved(place, poisoned)
    after, resumed = found[step + 1], found[step + 2]
    assert after.skipped == poisoned.index(step) + 1
    assert after.finite
    assert resumed.finite
    assert resumed.best is (True if moment == "last step of the run" else None)
