"""A run that stops on non-finite values leaves a dump, and a replay finds their origin."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import TINY
from torch import nn

from od_detr.checkpoints import load_checkpoint
from od_detr.cli import main
from od_detr.errors import InputError, NonFiniteError
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.cost.passes import blank_batch
from od_detr.training.fit import fit
from od_detr.training.module import Training
from od_detr.training.nonfinite.replay import replay
from od_detr.training.nonfinite.watch import Watch, unsound_weight
from od_detr.training.plan import assembled, planned
from od_detr.training.recipe import Recipe

pytestmark = pytest.mark.slow

Options = Callable[..., TrainOptions]
NAN = float("nan")


def spoil_from(
    patch: pytest.MonkeyPatch, step: int, choose: Callable[[Training], nn.Module]
) -> None:
    """The output of a module is NaN from this step on, counted from 1."""
    original = Training.__init__

    def built(self: Training, *args: Any) -> None:
        original(self, *args)

        def spoiled(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor | None:
            return output * NAN if self.state.step + 1 >= step else None

        choose(self).register_forward_hook(spoiled)

    patch.setattr(Training, "__init__", built)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.fixture(scope="module")
def stopped_once(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """A run that stopped in its second epoch, since the encoder was NaN from step 5 on."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    values = {"epochs": 3, "nonfinite_limit": 2, "data": str(scenes), "output": str(folder)}
    chosen = TrainOptions(**TINY | values)
    with pytest.MonkeyPatch.context() as patch:
        spoil_from(patch, 5, lambda training: training.network.detector.encoder.layers[0].norm2)
        with pytest.raises(NonFiniteError, match=r"--replay .*nonfinite\.json"):
            fit(chosen)
    return chosen


@pytest.fixture
def stopped(stopped_once: TrainOptions, tmp_path: Path) -> tuple[TrainOptions, Path]:
    """A copy of that run for one test, and the dump in it."""
    copy = shutil.copytree(stopped_once.output, tmp_path / "stopped")
    return replace(stopped_once, output=str(copy)), Path(copy) / "nonfinite.json"


@pytest.mark.slow
def test_the_step_is_repeated_from_the_last_checkpoint_and_its_first_bad_module_named(
    stopped: tuple[TrainOptions, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, dump = stopped
    before, content = contents(dump.parent), json.loads(dump.read_text())
    assert content["step"] == 6
    assert len(content["images"]) == chosen.batch_size
    assert load_checkpoint(RunFiles(dump.parent)).contents["global_step"] == 3
    with monkeypatch.context() as patch:
        spoil_from(patch, 5, lambda training: training.network.detector.encoder.layers[0].norm2)
        found = replay(chosen, dump)
    assert (found.step, found.begun, list(found.images)) == (6, 3, content["images"])
    assert found.found
    assert found.found.module == "detector.encoder.layers.0.norm2"
    assert replay(chosen, dump).found is None  # the fault is gone
    assert contents(dump.parent) == before


@pytest.mark.parametrize("place", ["loss", "gradient", "teacher"])
def test_a_loss_term_a_gradient_and_the_teacher_are_named_too(
    place: str, stopped: tuple[TrainOptions, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, dump = stopped
    if place == "loss":
        original = Recipe.losses

        def poisoned(*args: Any) -> dict[str, torch.Tensor]:
            terms = original(*args)
            return terms | {"matching/l1/1": terms["matching/l1/1"] * NAN}

        monkeypatch.setattr(Recipe, "losses", poisoned)
        wanted = "loss"
    elif place == "gradient":
        wanted = "detector.decoder.heads.classes.1"
        begun = Training.__init__

        def built(self: Training, *args: Any) -> None:
            begun(self, *args)
            weight = self.network.detector.decoder.heads.classes[1].weight
            weight.register_hook(lambda gradient: gradient * NAN)

        monkeypatch.setattr(Training, "__init__", built)
    else:
        wanted = "teacher.average.detector.decoder.layers.1.norm3"
        spoil_from(
            monkeypatch, 0, lambda each: each.network.teacher.detector.decoder.layers[1].norm3
        )
    found = replay(chosen, dump).found
    assert found is not None
    assert found.module == wanted


def test_a_learning_rate_that_breaks_the_weights_ends_with_status_3_and_its_dump_says_so(
    options: Options,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    tiny: list[str],
    scenes: Path,
) -> None:
    run = tmp_path / "run"
    command = ["train", "--data", str(scenes), "--output", str(run), *tiny]
    assert main([*command, "--opt.lr", "1e30", "--epochs", "9", "--nonfinite-limit", "2"]) == 3
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert str(run / "nonfinite.json") in error
    assert main(["train", "--replay", str(run / "nonfinite.json"), "--json"]) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert result["module"]
    assert result["images"]


def test_a_dump_that_does_not_fit_its_run_is_refused(stopped: tuple[TrainOptions, Path]) -> None:
    chosen, dump = stopped
    content = json.loads(dump.read_text())
    for change in ({"step": 2}, {"step": 100}, {"step": "6"}, {"images": [999]}, {"images": 5}):
        dump.write_text(json.dumps(content | change))
        with pytest.raises(InputError, match=r"nonfinite\.json"):
            replay(chosen, dump)
    for text in ("", "[]", "{", "{}"):
        dump.write_text(text)
        with pytest.raises(InputError, match=r"nonfinite\.json"):
            replay(chosen, dump)


@pytest.mark.parametrize("name", ["no.json", "../no.json"])
def test_a_dump_that_is_not_there_is_refused_by_its_name(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--replay", name]) == 2
    assert f"--replay {name}: " in capfd.readouterr().err


@pytest.mark.parametrize(
    "model", ["deformable-detr-plus", "dab-deformable-detr", "dino-4scale", "dino-5scale"]
)
def test_a_sound_step_has_nothing_to_report(model: str, options: Options) -> None:
    levels = {"dino-4scale": 4, "dino-5scale": 5}.get(model, 3)
    parts = assembled(planned(options(model=model, num_levels=levels)))
    with Watch(parts.network) as watch:
        terms = parts.network(blank_batch((64, 96), 3))
        torch.stack(list(terms.values())).sum().backward()
    assert watch.first is None
    assert unsound_weight(parts.network, "before the step") is None


def test_weights_that_are_broken_already_are_reported_first(options: Options) -> None:
    network = assembled(planned(options())).network
    with torch.no_grad():
        network.detector.decoder.layers[0].norm1.weight[3] = NAN
    found = unsound_weight(network, "before the step")
    assert found is not None
    assert found.module == "detector.decoder.layers.0.norm1"
    with Watch(network) as watch:
        network(blank_batch((64, 64), 2))
    assert watch.first is not None
    assert watch.first.module == "detector.decoder.layers.0.norm1"
