"""A run: what it writes, that it can be stopped anywhere, and that it trains what it should."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.subset import first_images
from tests.training.backbone import backbone_file

from od_detr.architectures import ARCHITECTURES, ModelName
from od_detr.cli.parsing.parser import parse
from od_detr.cli.train import TrainCommand
from od_detr.data.scenes import CLASSES
from od_detr.detectors import build_detector, compile_backbone, load_detector
from od_detr.dotted import flat
from od_detr.errors import InputError
from od_detr.options import RESOLVED_LATER, OptimizerOptions, TrainOptions
from od_detr.training.fit import fit
from od_detr.training.module import Training
from od_detr.training.optimizer import make_optimizer, make_schedule
from od_detr.training.plan import assembled, planned
from od_detr.training.recipe import Recipe
from od_detr.training.record.state import SECONDS
from od_detr.training.teacher import Teacher, scaled_decay

Options = Callable[..., TrainOptions]


COLUMNS = [
    "epoch",
    "step",
    "train/loss",
    *(f"val/{name}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "teacher/AP")),
    *(f"stability/{name}" for name in ("instability", "teacher_instability", "consistency")),
]


def checkpoint(run: Path) -> dict:
    return torch.load(run / "last.ckpt", weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_run_leaves_what_the_interface_names(options: Options) -> None:
    chosen = options(recipe="od", epochs=3)
    result = fit(chosen)
    run = Path(chosen.output)

    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "last.ckpt",
        "previous.ckpt",
        "best",
        "run.lock",
        "tensorboard",
    }
    table = rows(run)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert [row["step"] for row in table] == ["3", "6", "9"]
    assert set(COLUMNS) <= set(table[0])
    assert {"train/matching/class/2", "train/prediction/giou/1", "train/auxiliary/l1/2"} <= set(
        table[0]
    )
    assert table[0]["stability/instability"] == ""
    assert float(table[1]["stability/instability"]) >= 0
    terms = [
        float(table[0][name])
        for name in table[0]
        if name.startswith("train/") and name != "train/loss"
    ]
    assert float(table[0]["train/loss"]) == pytest.approx(sum(terms), rel=1e-5)

    detector, config = load_detector(run / "best")
    assert config["classes"] == list(CLASSES)
    assert config["weights"] in ("online", "teacher")
    assert config["AP"] == max(max(row["val/AP"], row["val/teacher/AP"]) for row in result.rows)
    assert detector.settings["hidden_dim"] == 32
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))

    again = parse("train", TrainCommand, ["--config", str(run / "config.yaml")], True)
    resolved, given = flat(dataclasses.asdict(again)), flat(dataclasses.asdict(chosen))
    assert resolved.pop("json") is False
    assert resolved.pop("replay") is None
    assert resolved.keys() == given.keys()
    assert all(resolved[name] is not None for name in RESOLVED_LATER)
    assert {name for name in given if resolved[name] != given[name]} <= {
        name for name in RESOLVED_LATER if given[name] is None
    }


@pytest.mark.slow
def test_best_is_kept_even_where_there_is_nothing_to_find(
    options: Options, scenes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(scenes / "images")
    for split in ("train", "val"):
        content = json.loads((scenes / f"{split}.json").read_text())
        (data / f"{split}.json").write_text(json.dumps(content | {"annotations": []}))
    result = fit(options(data=str(data), epochs=1))
    assert result.rows[0]["val/AP"] == -1
    assert math.isfinite(result.rows[0]["train/loss"])
    assert (result.directory / "best" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_last_epoch_is_validated_whatever_the_interval(options: Options) -> None:
    result = fit(options(epochs=3, eval=dataclasses.replace(options().eval, every=2)))
    assert ["val/AP" in row for row in result.rows] == [False, True, True]


def test_a_saved_detector_without_a_checkpoint_is_never_written_over(options: Options) -> None:
    (Path(options().output) / "best").mkdir(parents=True)
    with pytest.raises(
        InputError,
        match=r"best: .*--output",
    ):
        fit(options())


@pytest.mark.slow
def test_a_finished_run_is_left_alone_and_told_again_by_resume(options: Options) -> None:
    first = fit(options(epochs=1))
    before = checkpoint(first.directory)["state_dict"]
    with pytest.raises(InputError, match="a run is there already; continue it with --resume"):
        fit(options(epochs=1))
    again = fit(options(epochs=1, resume=True))
    assert again.rows == first.rows
    after = checkpoint(first.directory)["state_dict"]
    assert all(
        torch.equal(before[name], after[name]) for name in before if torch.is_tensor(before[name])
    )


@pytest.mark.slow
def test_a_resumed_run_refuses_other_options_by_name(options: Options) -> None:
    fit(options(epochs=1))
    with pytest.raises(
        InputError, match=r"--hidden-dim is 64 but was 32 .* --config .*config.yaml --resume"
    ):
        fit(options(epochs=1, resume=True, hidden_dim=64))
    with pytest.raises(InputError, match=r"--opt.lr is 0.5 but was 0.0002"):
        fit(options(epochs=1, resume=True, opt=OptimizerOptions(lr=0.5)))
    with pytest.raises(
        InputError, match=r"would have 8 images but had 4 .*; give --batch-size 2, or"
    ):
        fit(options(epochs=1, resume=True, devices=2))


@pytest.mark.slow
def test_a_resumed_run_refuses_other_data_unless_told_so(
    options: Options, scenes: Path, tmp_path: Path
) -> None:
    """Other data means other classes, images or boxes; where the folder is does not matter."""
    fit(options(epochs=1))
    moved = tmp_path / "moved"
    shutil.copytree(scenes, moved)
    content, val = (json.loads((moved / f"{name}.json").read_text()) for name in ("train", "val"))
    planned_again = partial(options, epochs=2, resume=True, data=str(moved))
    assert assembled(planned(planned_again())).state.data

    def refused(name: str, change: Callable[[dict], object]) -> str:
        changed = copy.deepcopy(content)
        change(changed)
        (moved / "train.json").write_text(json.dumps(changed))
        (moved / "val.json").write_text(json.dumps(val | {"categories": changed["categories"]}))
        with pytest.raises(InputError, match=name) as caught:
            assembled(planned(planned_again()))
        assembled(planned(planned_again(resume_with_other_data=True)))
        return str(caught.value)

    names = [category["name"] for category in content["categories"]]
    said = refused("class 2 ", lambda c: c["categories"][1].update(name="a new name"))
    for part in (names[1], "a new name", "last.ckpt"):
        assert part in said
    refused("order", lambda c: c["images"].reverse())
    refused("boxes", lambda c: c["annotations"][0]["bbox"].__setitem__(2, 7))
    extra = {"id": 9999, "file_name": content["images"][0]["file_name"], "width": 64, "height": 64}
    said = refused("number of training images", lambda c: c["images"].append(extra))
    assert "was 12 and is 13" in said


@pytest.mark.slow
def test_a_run_goes_on_with_another_validation_set_if_told_so(
    options: Options, scenes: Path, tmp_path: Path
) -> None:
    """Matches of images that are not there any more are compared with nothing."""
    begun = fit(options(epochs=2))
    other = tmp_path / "other"
    shutil.copytree(scenes, other)
    content = json.loads((other / "val.json").read_text())
    for each in content["images"]:
        each["id"] += 1000
    for each in content["annotations"]:
        each["image_id"] += 1000
    (other / "val.json").write_text(json.dumps(content))
    again = partial(options, resume=True, val_data=str(other), resume_with_other_data=True)
    rows = fit(again(epochs=4)).rows
    assert "stability/instability" in begun.rows[1]
    assert "stability/instability" not in rows[2]
    assert rows[3]["stability/instability"] >= 0


@pytest.mark.slow
def test_a_resumed_run_refuses_data_of_another_number_of_steps(
    options: Options, scenes: Path, tmp_path: Path
) -> None:
    fit(options(epochs=1))
    less = tmp_path / "less"
    shutil.copytree(scenes, less)
    (less / "train.json").write_text(json.dumps(first_images(scenes / "train.json", 4)))
    with pytest.raises(
        InputError,
        match=r"last\.ckpt: an epoch had 3 steps and would now have 1; give the training",
    ):
        fit(options(epochs=2, resume=True, data=str(less), resume_with_other_data=True))


@pytest.mark.slow
def test_a_longer_run_goes_on_at_the_rate_and_with_the_average_it_had(options: Options) -> None:
    """Neither the drop nor the decay changes when a resumed run gets more epochs."""
    begun = fit(options(epochs=3, recipe="od"))
    config = begun.directory / "config.yaml"
    before = yaml.safe_load(config.read_text())
    assert before["opt"]["drop"] == 2
    assert before["opt"]["lr"] == 2e-4
    assert before["hidden_dim"] == 32
    assert before["ema"]["decay"] == pytest.approx(scaled_decay(9))
    assert before["qfl"]["class_weight"] == 2
    fit(options(epochs=4, recipe="od", resume=True))
    assert yaml.safe_load(config.read_text()) == before | {"epochs": 4}
    saved = checkpoint(begun.directory)
    assert saved["schedule"]["_last_lr"][0] == pytest.approx(2e-5)


@pytest.mark.parametrize(
    ("name", "word", "said"),
    [
        ("recipe", "OD", "--recipe .*'OD'"),
        ("md.cost", "theirs", "--md.cost .*'theirs'"),
    ],
)
def test_a_misspelt_choice_from_python_is_refused(
    name: str, word: str, said: str, options: Options
) -> None:
    chosen = options()
    group, _, field = name.rpartition(".")
    object.__setattr__(
        getattr(chosen, group) if group else chosen, field, word
    )  # tests check types when made
    with pytest.raises(InputError, match=said):
        fit(chosen)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    options: Options, tmp_path: Path
) -> None:
    runs = [
        fit(options(output=str(tmp_path / str(place)), seed=seed))
        for place, seed in enumerate((1, 1, 2))
    ]
    one, other = ([row | {SECONDS: 0} for row in run.rows] for run in runs[:2])
    assert one == other
    assert runs[0].rows[0]["train/loss"] != runs[2].rows[0]["train/loss"]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*Dynamo does not know how to trace"
)  # the shape checks of tests
def test_a_compiled_backbone_is_the_same_backbone(options: Options) -> None:
    detector = build_detector(
        "deformable-detr-plus", 3, backbone="resnet18", backbone_frozen=True, hidden_dim=32
    )
    teacher, images = Teacher(detector), torch.randn(2, 3, 64, 64)
    wanted = detector.backbone(images_stem := detector.backbone.stem(images))
    names = list(detector.state_dict())
    for each in (detector, teacher.detector):
        compile_backbone(each, backend="aot_eager")
    assert list(detector.state_dict()) == names  # what is saved does not know of it
    for backbone in (detector.backbone, teacher.detector.backbone):
        for found, expected in zip(backbone(images_stem), wanted, strict=True):
            torch.testing.assert_close(found, expected)
    sum(features.sum() for features in detector.backbone(images_stem)).backward()
    assert all(
        weight.grad is not None for weight in detector.backbone.parameters() if weight.requires_grad
    )


@pytest.mark.parametrize(
    ("epochs", "drop"), [(12, 11), (24, 20), (50, 40), (6, 5), (3, 2), (100, 83)]
)
def test_the_learning_rate_drops_tenfold_at_the_epoch_of_the_papers(epochs: int, drop: int) -> None:
    options = TrainOptions("data", epochs=epochs)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = make_schedule(optimizer, 7, options.drop_epoch, warmup=0)
    rates = []
    for _ in range(7 * epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [2.0] * (7 * drop) + [0.2] * (7 * (epochs - drop))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_the_backbone_and_deformable_detrs_offsets_learn_ten_times_slower(
    architecture: ModelName,
) -> None:
    sizes = {
        "hidden_dim": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "queries": 8,
        "feedforward": 32,
    }
    detector = build_detector(architecture, 5, backbone="resnet18", backbone_frozen=True, **sizes)
    optimizer = make_optimizer(detector, OptimizerOptions(), ARCHITECTURES[architecture])
    rate = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    base = 2e-4 if architecture == "deformable-detr-plus" else 1e-4
    for name, parameter in detector.named_parameters():
        slower = name.startswith("backbone.")
        if architecture == "deformable-detr-plus":
            slower |= "sampling_offsets" in name or "reference_points" in name
        expected = base * (0.1 if slower else 1.0) if parameter.requires_grad else None
        assert rate.get(id(parameter)) == (pytest.approx(expected) if expected else None), name
    assert all(group["weight_decay"] == 1e-4 for group in optimizer.param_groups)
    assert any("sampling_offsets" in name for name, _ in detector.named_parameters())


@pytest.mark.slow
def test_stop_update_freezes_the_teacher_with_the_first_step_of_the_reduced_rate(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = Training.step

    def checksum(detector: torch.nn.Module) -> float:
        return float(sum(parameter.double().abs().sum() for parameter in detector.parameters()))

    def spy(self: Training, *args: object) -> None:
        rate, teacher = self.descent.optimizer.param_groups[0]["lr"], self.network.teacher
        original(self, *args)
        assert teacher is not None
        seen.append((rate, checksum(teacher.detector), checksum(teacher.evaluated)))

    monkeypatch.setattr(Training, "step", spy)
    fit(options(epochs=3, recipe="od"))  # drops after 2 epochs of 3 steps
    rates, teacher, evaluated = zip(*seen, strict=True)
    assert [rate == max(rates) for rate in rates] == [True] * 6 + [False] * 3
    assert len(set(teacher[:6])) == 6
    assert set(teacher[6:]) == {teacher[5]}
    assert teacher[:6] == evaluated[:6]
    assert len(set(evaluated)) == 9


@pytest.mark.slow
def test_frozen_weights_never_move_and_norms_are_frozen_only_where_weights_were_loaded(
    options: Options, tmp_path: Path
) -> None:
    file = backbone_file(tmp_path)
    start = load_file(file)

    loaded = checkpoint(
        fit(
            options(output=str(tmp_path / "loaded"), backbone_weights=str(file), epochs=3)
        ).directory
    )
    frozen = [
        name
        for name in start
        if "bn" in name or "downsample.1" in name or name.startswith(("conv1", "layer1"))
    ]
    frozen = [name for name in frozen if not name.endswith("num_batches_tracked")]
    for role in ("detector.", "teacher.average.detector.", "teacher.evaluation.detector."):
        for name in frozen:
            assert torch.equal(
                loaded["state_dict"][f"{role}backbone.features.{name}"], start[name]
            ), role + name
    moved = "detector.backbone.features.layer4.0.downsample.0.weight"
    assert not torch.equal(loaded["state_dict"][moved], start["layer4.0.downsample.0.weight"])

    scratch = checkpoint(fit(options(output=str(tmp_path / "scratch"))).directory)["state_dict"]
    prefix = "detector.backbone.features.bn1."
    assert not torch.equal(scratch[prefix + "weight"], torch.ones(8))
    assert not torch.equal(scratch[prefix + "running_mean"], torch.zeros(8))


@pytest.mark.slow
def test_accumulating_two_batches_of_4_equals_a_batch_of_8(
    options: Options, scenes: Path, tmp_path: Path
) -> None:
    # Frozen norms, since live ones see the batch.
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(scenes / "images")
    for split, images in (("train", 8), ("val", 4)):
        content = first_images(scenes / f"{split}.json", images)
        (data / f"{split}.json").write_text(json.dumps(content))
    file = backbone_file(tmp_path)
    gradients = []
    for size, times in ((8, 1), (4, 2)):
        chosen = options(
            data=str(data), output=str(tmp_path / f"run{size}"), epochs=1, batch_size=size,
            accumulate=times,
            augment="none", dropout=0.0, backbone_weights=str(file), opt=OptimizerOptions(clip=0.0),
        )  # fmt: skip
        run = fit(chosen)
        assert run.rows[0]["step"] == 1
        states = checkpoint(run.directory)["optimizer"]["state"]
        gradients.append(torch.cat([states[key]["exp_avg"].flatten() for key in sorted(states)]))
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_bf16_trains_with_losses_in_float32(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, set[torch.dtype]]] = []
    original = Recipe.losses

    def spy(self: Recipe, *args: object, **kwargs: object) -> dict:
        terms = original(self, *args, **kwargs)
        seen.append((torch.is_autocast_enabled("cpu"), {term.dtype for term in terms.values()}))
        return terms

    monkeypatch.setattr(Recipe, "losses", spy)
    run = fit(options(precision="bf16", epochs=1))
    assert seen
    assert all(one == (True, {torch.float32}) for one in seen)
    weights = checkpoint(run.directory)["state_dict"]
    assert all(
        value.dtype != torch.bfloat16 for value in weights.values() if torch.is_tensor(value)
    )
    assert math.isfinite(run.rows[0]["train/loss"])
