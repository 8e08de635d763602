"""`--dry-run` says what training would say, and whether it could."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from od_detr.data.scenes import CLASSES
from od_detr.detectors import build_detector, save_detector
from od_detr.errors import InputError
from od_detr.options import SIZES, TrainOptions
from od_detr.training.cost import dry_run as module
from od_detr.training.cost.dry_run import dry_run

Options = Callable[..., TrainOptions]


def test_device_steps_time_and_memory_are_named(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = dry_run(options(epochs=3, recipe="od"))
    found, text = costs.as_result(), "\n".join(costs.described())
    assert found["steps"] == 9
    assert found["seconds"] > 0
    assert found["memory_suffices"] is True
    for fact in ("cpu", "9 steps", "0:00", "GFLOPs", "with the longest images: suffices"):
        assert fact in text
    monkeypatch.setattr(module, "memory_of", lambda device: round(costs.memory / 1.5))
    assert costs.as_result()["memory_suffices"] is False
    assert "does not suffice; give --batch-size 2 --accumulate 2 or " in costs.described()[-1]


@pytest.mark.slow
def test_memory_that_suffices_for_4_by_3_only_does_not_suffice(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("od_detr.training.display.start.resident", lambda: 10**9)
    costs = dry_run(options())
    least = costs.estimate.bytes + 10**9
    for present, fits in ((least, False), (round(1.3 * least), True)):
        monkeypatch.setattr(module, "memory_of", lambda device, present=present: present)
        assert costs.fits is fits


def test_weights_that_are_missing_are_one_line(options: Options, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.safetensors") as refused:
        dry_run(options(backbone_weights=str(tmp_path / "nowhere.safetensors")))
    assert "\n" not in str(refused.value)


def test_pretrained_weights_that_cannot_be_had_are_said_as_training_says_it(
    options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"^--backbone-weights imagenet: .*from https://") as said:
        dry_run(options(backbone="resnet18", backbone_options={}, backbone_weights="imagenet"))
    assert "https://huggingface.co/timm/resnet18.tv_in1k and give --backbone-w" in str(said.value)


@pytest.mark.slow
def test_the_backbone_is_that_of_init(options: Options, tmp_path: Path) -> None:
    given = options()
    detector = build_detector(
        "dab-deformable-detr",
        len(CLASSES),
        backbone="resnet10t",
        **{name: getattr(given, name) for name in ("hidden_dim", "encoder_layers", "queries")},
    )
    save_detector(detector, tmp_path / "start", list(CLASSES), image_size=64)
    open_ones = {"backbone": None, "backbone_options": {}, **dict.fromkeys(SIZES)}
    costs = dry_run(options(init=str(tmp_path / "start"), **open_ones))
    assert costs.as_result()["backbone"] == "resnet10t"
    assert "dab-deformable-detr with resnet10t" in "\n".join(costs.described())
