"""Detectors on disk: old ones still load, damaged or hostile ones are refused in one line."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from od_detr.architectures import ARCHITECTURES
from od_detr.detectors import build_detector, load_detector, save_detector
from od_detr.detectors.saved import CONFIG, WEIGHTS
from od_detr.errors import InputError

RECORDED = Path(__file__).parent / "recorded"
SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "backbone_options": {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)},
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 7,
    "feedforward": 24,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    save_detector(
        build_detector("deformable-detr-plus", 2, **SMALL),
        folder,
        ["green", "red"],
        category_ids=[2, 5],
        image_size=96,
    )
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((original / name).read_bytes())
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_detector(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_a_detector_saved_by_version_0_1_loads(model: str, tmp_path: Path) -> None:
    """The configuration and the names and shapes of the weights were recorded at commit cc59fe2."""
    recorded = json.loads((RECORDED / f"{model}.json").read_text())
    (tmp_path / CONFIG).write_text(json.dumps(recorded["config"]))
    weights = {
        name: torch.zeros(shape, dtype=torch.long)
        if name.endswith("num_batches_tracked")
        else torch.rand(shape)
        for name, shape in recorded["weights"].items()
    }
    save_file(weights, tmp_path / WEIGHTS)
    detector, config = load_detector(tmp_path)
    loaded = detector.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert detector.settings["model"] == model
    assert detector.settings["points"] == 2
    assert detector.settings["num_levels"] == (5 if model == "dino-5scale" else 4)
    assert config["classes"] == ["green", "red"]
    assert config["category_ids"] == [2, 5]


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_saving_and_loading_keeps_settings_and_weights(model: str, tmp_path: Path) -> None:
    detector = build_detector(model, 3, **SMALL)
    save_detector(detector, tmp_path, ["a", "b", "c"], epoch=4)
    again, config = load_detector(tmp_path)
    save_detector(again, tmp_path / "second", config["classes"], epoch=config["epoch"])
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize(
    ("model", "levels", "other"),
    [("dino-5scale", 4, "dino-4scale"), ("dino-4scale", 5, "dino-5scale"), ("dino-4scale", 3, "")],
)
def test_a_dino_has_the_levels_of_its_name(model: str, levels: int, other: str) -> None:
    with pytest.raises(InputError, match=rf"{model}.*{other}"):
        build_detector(model, 3, num_levels=levels)


def test_an_unknown_architecture_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="dino-4scale"):
        build_detector("dino4scale", 3)


CONFIG_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another levels count": (lambda c: c["detector"].update(model="dino-5scale"), "model"),
    "no detector": (lambda c: c.pop("detector"), "detector"),
    "detector as a list": (lambda c: c.update(detector=[1]), "detector"),
    "unknown model": (lambda c: c["detector"].update(model="../x"), "model"),
    "unknown setting": (lambda c: c["detector"].update(hidden=3), "hidden"),
    "weights setting": (lambda c: c["detector"].update(backbone_weights="f"), "backbone_weights"),
    "no classes": (lambda c: c["detector"].pop("num_classes"), "num_classes"),
    "a truth as size": (lambda c: c["detector"].update(queries=True), "queries"),
    "a text as size": (lambda c: c["detector"].update(hidden_dim="32"), "hidden_dim"),
    "a negative size": (lambda c: c["detector"].update(queries=-1), "queries"),
    "a huge size": (lambda c: c["detector"].update(hidden_dim=10**12), "hidden_dim"),
    "terabytes": (
        lambda c: c["detector"].update(hidden_dim=8192, feedforward=65536, encoder_layers=100),
        "hidden_dim",
    ),
    "more than the weights": (lambda c: c["detector"].update(hidden_dim=2048), "hidden_dim"),
    "class names": (lambda c: c.update(classes=["a"]), "classes"),
    "class numbers": (lambda c: c.update(classes=[1, 2]), "classes"),
    "category ids": (lambda c: c.update(category_ids=[1, "2"]), "category_ids"),
    "image size": (lambda c: c.update(image_size=10**9), "image_size"),
    "a path as backbone": (lambda c: c["detector"].update(backbone="/etc/passwd"), "backbone"),
    "the hub": (lambda c: c["detector"].update(backbone="hf-hub:a/b"), "backbone"),
    "a local folder": (lambda c: c["detector"].update(backbone="local-dir:/tmp"), "backbone"),
    **{
        option: (
            lambda c, option=option, value=value: c["detector"].update(
                backbone_options={option: value}
            ),
            option,
        )
        for option, value in {
            "checkpoint_path": "x.pth",
            "pretrained_cfg": {"url": "http://localhost/x.pth"},
            "pretrained_cfg_overlay": {"file": "x.pth"},
            "pretrained": True,
            "cache_dir": "/tmp",
            "features_only": False,
            "channels": [10**9],
            "layers": "rm",
        }.items()
    },
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_faulty_or_hostile_configuration_is_refused(
    fault: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No address is looked up and no file but the two is read, whatever the configuration says."""
    change, field = CONFIG_FAULTS[fault]
    edit(folder, change)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"loading reached out: {args}")

    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    monkeypatch.setattr(timm.models, "load_checkpoint", forbidden)
    assert field in refusal(folder)


def test_a_configuration_that_is_no_json_is_refused(folder: Path) -> None:
    for content in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000):
        (folder / CONFIG).write_bytes(content)
        assert CONFIG in refusal(folder)


WEIGHT_FAULTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "cut in the header": lambda file: file.write_bytes(file.read_bytes()[:200]),
    "surplus bytes": lambda file: file.write_bytes(file.read_bytes() + b"0000"),
    "a header bomb": lambda file: file.write_bytes((2**40).to_bytes(8, "little") + b"{}"),
    "a full header bomb": lambda file: file.write_bytes(
        (2**25).to_bytes(8, "little") + b" " * 2**25
    ),
    "a header that is not JSON": lambda file: file.write_bytes((2).to_bytes(8, "little") + b"{["),
    "a pickle": lambda file: torch.save({}, file, _use_new_zipfile_serialization=False),
    "a PyTorch file": lambda file: torch.save({"a": torch.zeros(2)}, file),
    "a web page": lambda file: file.write_text("<!DOCTYPE html><html></html>"),
}


@pytest.mark.parametrize("fault", WEIGHT_FAULTS)
def test_a_damaged_or_foreign_weights_file_is_refused(fault: str, folder: Path) -> None:
    WEIGHT_FAULTS[fault](folder / WEIGHTS)
    message = refusal(folder)
    assert WEIGHTS in message
    assert "weights_only" not in message


def test_a_git_lfs_pointer_is_recognised_by_name(folder: Path) -> None:
    (folder / WEIGHTS).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    )
    message = refusal(folder)
    assert "Git LFS" in message
    assert "git lfs pull" in message


NAME = "decoder.heads.classes.0.bias"
TENSOR_FAULTS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "missing": lambda weights: weights.pop(NAME),
    "renamed": lambda weights: weights.update({"other": weights.pop(NAME)}),
    "another shape": lambda weights: weights.update({NAME: torch.zeros(9)}),
    "another type": lambda weights: weights.update({NAME: weights[NAME].half()}),
    "whole numbers": lambda weights: weights.update({NAME: weights[NAME].long()}),
    "not a number": lambda weights: weights[NAME].fill_(float("nan")),
    "infinite": lambda weights: weights[NAME][:1].fill_(float("inf")),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_weights_that_do_not_fit_or_are_not_finite_are_refused(fault: str, folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    TENSOR_FAULTS[fault](weights)
    save_file(weights, folder / WEIGHTS)
    assert NAME in refusal(folder)


def test_surplus_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"teacher.weight": torch.zeros(2)}, folder / WEIGHTS)
    assert "teacher.weight" in refusal(folder)


def saved_twice(folder: Path) -> tuple[Path, Path]:
    """Two saves of different detectors for the same folder."""
    saves = folder / "one", folder / "two"
    for epoch, (save, names) in enumerate(zip(saves, (["a", "b"], ["c", "d"]), strict=True)):
        save_detector(build_detector("deformable-detr-plus", 2, **SMALL), save, names, epoch=epoch)
    return saves


def test_weights_beside_the_configuration_of_others_bring_their_own(tmp_path: Path) -> None:
    """A kill between the two renames of a save leaves this; the new detector is complete."""
    one, two = saved_twice(tmp_path)
    (one / WEIGHTS).write_bytes((two / WEIGHTS).read_bytes())
    detector, config = load_detector(one)
    expected, described = load_detector(two)
    assert config == described
    assert config["classes"] == ["c", "d"]
    assert config["epoch"] == 1
    for name, value in expected.state_dict().items():
        assert torch.equal(detector.state_dict()[name], value)


def test_weights_without_a_configuration_bring_their_own(tmp_path: Path) -> None:
    one, _ = saved_twice(tmp_path)
    (one / CONFIG).unlink()
    assert load_detector(one)[1]["classes"] == ["a", "b"]


def test_a_flipped_bit_in_the_weights_is_found(tmp_path: Path) -> None:
    one, _ = saved_twice(tmp_path)
    content = bytearray((one / WEIGHTS).read_bytes())
    for place in (-1, -5000, len(content) // 2):
        content[place] ^= 1
        (one / WEIGHTS).write_bytes(content)
        assert WEIGHTS in refusal(one)
        content[place] ^= 1


def test_names_that_a_user_changes_in_the_configuration_count(tmp_path: Path) -> None:
    one, _ = saved_twice(tmp_path)
    edit(one, lambda config: config.update(classes=["cat", "dog"]))
    assert load_detector(one)[1]["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_a_row_of_the_table_is_all_that_names_a_builder(model, monkeypatch) -> None:
    """An architecture of one's own is a builder and a row: nothing else knows its name."""
    monkeypatch.setitem(ARCHITECTURES, "mine", ARCHITECTURES[model])
    mine, theirs = build_detector("mine", 3, **SMALL), build_detector(model, 3, **SMALL)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
