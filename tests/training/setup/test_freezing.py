"""`--freeze`: what is frozen stays as it was, bit for bit, and the rest trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.small import small_batch

from od_detr.checkpoints import load_checkpoint
from od_detr.data.scenes import CLASSES
from od_detr.detectors import build_detector, save_detector
from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.fit import fit
from od_detr.training.plan import assembled, planned
from od_detr.training.setup.freezing import FROZEN

Options = Callable[..., TrainOptions]


@pytest.fixture
def start(options: Options, tmp_path: Path) -> Path:
    """A saved detector with live batch norms and dropout, whose modes would matter."""
    given = options()
    detector = build_detector(
        "deformable-detr-plus",
        len(CLASSES),
        backbone=given.backbone,
        backbone_options=given.backbone_options,
        dropout=0.1,
        **{
            name: getattr(given, name)
            for name in ("hidden_dim", "encoder_layers", "decoder_layers", "queries")
        },
    )
    save_detector(detector, tmp_path / "start", list(CLASSES), image_size=64)
    return tmp_path / "start"


def from_start(options: Options, start: Path, **changes: object) -> TrainOptions:
    sizes = ("hidden_dim", "encoder_layers", "decoder_layers", "queries", "feedforward")
    return options(init=str(start), num_levels=None, **dict.fromkeys(sizes), **changes)


@pytest.mark.slow
@pytest.mark.parametrize("choice", FROZEN)
def test_frozen_parts_stay_as_they_were_and_the_rest_trains(
    choice: str, options: Options, start: Path
) -> None:
    chosen = from_start(options, start, freeze=choice, recipe="od")
    before = assembled(planned(chosen)).network.detector.state_dict()
    run = fit(chosen).directory
    saved = load_checkpoint(RunFiles(run)).contents
    for network in ("detector", "teacher.average.detector"):
        after = {name: saved["state_dict"][f"{network}.{name}"] for name in before}
        changed = {
            name.split(".")[0] for name in before if not torch.equal(before[name], after[name])
        }
        assert changed == {"backbone", "neck", "encoder", "queries", "decoder"} - {*FROZEN[choice]}
    network = assembled(planned(chosen_again(chosen))).network
    trained = [each for each in network.detector.parameters() if each.requires_grad]
    assert len(saved["optimizer"]["state"]) == len(trained)


def chosen_again(chosen: TrainOptions) -> TrainOptions:
    return TrainOptions(**{**vars(chosen), "resume": True, "epochs": 3})


def test_frozen_parts_are_in_eval_mode_whenever_the_rest_trains(
    options: Options, start: Path
) -> None:
    network = assembled(planned(from_start(options, start, freeze="encoder"))).network
    for _ in range(2):
        modes = {name: part.training for name, part in network.detector.named_children()}
        assert modes == {
            "backbone": False, "neck": False, "encoder": False, "queries": True, "decoder": True
        }  # fmt: skip
        backbone = network.detector.get_submodule("backbone")
        assert not any(each.training for each in backbone.modules())
        network.eval().train()


def test_the_teacher_takes_the_frozen_backbones_maps_and_gives_the_same_losses(
    options: Options, start: Path
) -> None:
    network = assembled(planned(from_start(options, start, freeze="backbone"))).network
    batch, passes = small_batch((2, 1), len(CLASSES)), []
    backbone = network.get_submodule("teacher.average.detector.backbone")
    backbone.register_forward_hook(lambda *_: passes.append(1))

    def losses() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return {name: term.detach() for name, term in network(batch).items()}

    given = losses()
    assert not passes
    network.recipe.shares = "frozen"
    own = losses()
    assert passes
    assert all(torch.equal(given[name], own[name]) for name in own)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_with_frozen_parts_goes_on_bit_for_bit(
    recompute: bool, options: Options, start: Path, tmp_path: Path
) -> None:
    chosen = from_start(options, start, freeze="encoder", checkpoint_encoder=recompute)
    whole = TrainOptions(**{**vars(chosen), "output": str(tmp_path / "whole")})
    drop = {"opt": type(chosen.opt)(drop=2)}
    fit(TrainOptions(**{**vars(whole), **drop}))
    fit(TrainOptions(**{**vars(chosen), **drop, "epochs": 1}))
    fit(TrainOptions(**{**vars(chosen), **drop, "resume": True}))
    one, other = (
        load_checkpoint(RunFiles(Path(each.output))).contents["state_dict"]
        for each in (whole, chosen)
    )
    differ = [
        name for name in one if torch.is_tensor(one[name]) and not one[name].equal(other[name])
    ]
    assert not differ


def test_random_weights_are_not_frozen(options: Options, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--freeze backbone: --backbone-weights none .*--init"):
        planned(options(freeze="backbone"))
    with pytest.raises(InputError, match=r"^--freeze encoder: .*--init"):
        planned(options(freeze="encoder", backbone_weights="imagenet"))
    planned(options(freeze="backbone", backbone_weights=str(tmp_path / "some.safetensors")))
