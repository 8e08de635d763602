"""A run takes what `--init` decides from there, and goes on without it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from od_detr.data.folders import open_split
from od_detr.detectors import build_detector, save_detector
from od_detr.errors import InputError
from od_detr.options import SIZES, EvalOptions, TrainOptions, from_values
from od_detr.training.cost.trial import Trial, by_trial
from od_detr.training.fit import fit
from od_detr.training.loop import in_steps
from od_detr.training.plan import assembled, planned

SMALL = {
    "backbone": "resnet18",
    "backbone_options": {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)},
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 12,
    "feedforward": 64,
}
OPEN = dict.fromkeys(SIZES) | {"image_size": None, "backbone": None, "backbone_options": {}}
CLASSES = ["square", "ghost", "circle"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved DINO with detrex's position encoding, which no option can state."""
    folder = tmp_path_factory.mktemp("start")
    detector = build_detector("dino-4scale", 3, temperature=10000.0, half_pixel=True, **SMALL)
    save_detector(detector, folder, CLASSES, image_size=64)
    return folder


def test_architecture_sizes_and_image_size_come_from_there(
    start: Path, options: Callable[..., TrainOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    parts = assembled(planned(options(init=str(start), **OPEN)))
    assert parts.options.model == "dino-4scale"
    assert parts.options.image_size == 64
    assert parts.options.backbone == "resnet18"
    assert parts.options.queries == 12
    assert parts.network.detector.settings["temperature"] == 10000.0
    assert f"{start}: a dino-4scale with resnet18 and 3 classes" in capsys.readouterr().out


@pytest.mark.parametrize(("given", "kept"), [(None, 77), (9, 9)])
def test_detections_of_an_image_are_those_of_init_unless_given(
    given: int | None, kept: int, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    """Training scores as many, and the saved detector gives as many."""
    save_detector(build_detector("dino-4scale", 3, top_k=77, **SMALL), tmp_path / "init", CLASSES)
    parts = assembled(
        planned(options(init=str(tmp_path / "init"), eval=EvalOptions(topk=given), **OPEN))
    )
    detector = parts.network.detector
    assert parts.options.eval.topk == detector.top_k == detector.settings["top_k"] == kept


def test_a_backbone_beside_init_is_refused_and_its_weights_are_said_to_be_left_out(
    start: Path, options: Callable[..., TrainOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights may stand in the configuration of the run that is gone on from."""
    with pytest.raises(InputError, match=r"--backbone resnet50: .* has a resnet18; leave it out"):
        planned(options(init=str(start), **OPEN | {"backbone": "resnet50"}))
    with pytest.raises(InputError, match=r"--backbone-options.* leave it out with --init"):
        planned(options(init=str(start), **OPEN | {"backbone_options": {"a": 1}}))
    planned(options(init=str(start), **OPEN | {"backbone_weights": "b.safetensors"}))
    assert "--backbone-weights b.safetensors: not read; " in capsys.readouterr().out


def test_a_trial_leaves_the_weights_as_they_were(
    scenes: Path, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    classes = open_split(scenes, "train").classes
    detector = build_detector("dino-4scale", len(classes), **SMALL)
    save_detector(detector, tmp_path / "init", classes, image_size=64)
    plan = planned(options(init=str(tmp_path / "init"), epochs=1, **OPEN))

    def train(trial: Trial) -> None:
        trial.step_seconds(islice(in_steps(trial.parts.train_batches, 1), 1))

    by_trial(plan, train)
    begun = assembled(plan).network.detector.state_dict()
    for name, value in detector.state_dict().items():
        torch.testing.assert_close(begun[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_an_image_size_that_is_given_wins_and_an_architecture_must_agree(
    start: Path, options: Callable[..., TrainOptions]
) -> None:
    given = OPEN | {"image_size": 96}
    assert planned(options(init=str(start), **given)).options.image_size == 96
    with pytest.raises(InputError, match=r"--model deformable-detr-plus: .*dino-4scale"):
        planned(options(init=str(start), model="deformable-detr-plus", **OPEN))


@pytest.mark.slow
def test_a_run_goes_on_after_its_init_is_gone(
    start: Path, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    init = Path(shutil.copytree(start, tmp_path / "init"))
    given = options(init=str(init), epochs=1, **OPEN)
    fit(given)
    shutil.rmtree(init)
    again = from_values(TrainOptions, {"output": given.output, "resume": True, "epochs": 2})
    assert again.queries == 12
    assert again.backbone == "resnet18"
    parts = assembled(planned(again))
    assert parts.network.detector.settings["half_pixel"] is True
    assert torch.is_tensor(
        parts.plan.checkpoint.contents["state_dict"]["detector.encoder.level_embed"]
    )
