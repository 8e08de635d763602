"""A trained detector is opened from whatever holds one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import HTTPError

from od_detr.architectures import ARCHITECTURES
from od_detr.detectors import DetectionTransformer, save_detector
from od_detr.errors import InputError
from od_detr.integrations.weights.convert import convert_to_huggingface
from od_detr.integrations.weights.hub import as_source
from od_detr.integrations.weights.official import to_official
from od_detr.integrations.weights.opening import open_weights

Small = Callable[..., DetectionTransformer]
COMMIT = "0123456789" * 4


def same(left: DetectionTransformer, right: DetectionTransformer) -> bool:
    """Whether all weights that a detector computes with are equal."""
    weights, expected = left.state_dict(), right.state_dict()
    names = [n for n in expected if not n.endswith("num_batches_tracked")]
    names = [n for n in names if not n.startswith("denoising.")]
    return all(torch.equal(weights[name], expected[name]) for name in names)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("model", ARCHITECTURES)
def test_an_official_checkpoint_shows_its_architecture_itself(
    small: Small, save: Callable[[object], Path], model: str
) -> None:
    detector = small(model)
    opened, config = open_weights(save({"model": to_official(detector.state_dict(), model)}))
    assert opened.settings["model"] == model
    assert not opened.training
    assert same(opened, detector)
    assert config["image_size"] == 800
    assert len(config["classes"]) == 5


@pytest.mark.slow
def test_a_run_a_saved_detector_and_a_hugging_face_folder_are_the_same_detector(
    small: Small, tmp_path: Path
) -> None:
    run, detector = tmp_path / "run", small("deformable-detr-plus", 2)
    facts = {"category_ids": [2, 5], "image_size": 96}
    save_detector(detector, run / "best", ["green", "red"], **facts)
    convert_to_huggingface(run, tmp_path / "theirs")
    weights = run / "best" / "model.safetensors"
    for source in (run, run / "best", weights, tmp_path / "theirs", str(tmp_path / "theirs")):
        opened, config = open_weights(source)
        assert same(opened, detector)
        assert {name: config[name] for name in facts} == facts
        assert config["classes"] == ["green", "red"]


def test_an_address_is_told_to_be_downloaded() -> None:
    with pytest.raises(InputError, match="addresses are not opened; download the file"):
        open_weights("https://example.com/dino.pth")


def test_a_checkpoint_for_continuing_names_its_run(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(InputError, match=r"last\.ckpt: is for continuing.*; give its run, "):
        open_weights(tmp_path / "last.ckpt")


@pytest.mark.slow
def test_a_repository_in_the_local_cache_needs_no_network(
    small: Small, tmp_path: Path, cache: Path
) -> None:
    detector = small("dino-4scale", 2)
    snapshot = cache / "models--some--detector" / "snapshots" / COMMIT
    save_detector(detector, snapshot, ["green", "red"], image_size=96)
    (cache / "models--some--detector" / "refs").mkdir()
    (cache / "models--some--detector" / "refs" / "main").write_text(COMMIT)
    opened, config = open_weights("hf:some/detector")
    assert same(opened, detector)
    assert config["image_size"] == 96
    assert same(open_weights(f"hf:some/detector@{COMMIT}")[0], detector)


def test_a_repository_out_of_reach_names_its_page(cache: Path) -> None:
    with pytest.raises(InputError, match=r"hf:some/thing: .*https://huggingface\.co/some/thing"):
        open_weights("hf:some/thing")
    with pytest.raises(InputError, match="hf:OWNER/NAME"):
        open_weights("hf:thing")


def test_a_proxy_that_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **options: object) -> None:
        raise HTTPError("407 Proxy Authentication Required")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    with pytest.raises(InputError, match=r"hf:some/thing: cannot be downloaded"):
        open_weights("hf:some/thing")


def test_a_name_of_the_hub_is_told_from_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    assert as_source("runs/x") == "runs/x"
    assert as_source("some/thing") == "hf:some/thing" == as_source("hf:some/thing")
    for path in (tmp_path, Path("a/b/c"), "./some/thing", "../thing", "weights.pth"):
        assert as_source(path) == str(path)


def test_weights_of_mmdetection_are_said_to_be_unsupported(save: Callable[[object], Path]) -> None:
    names = ["backbone.conv1.weight", "neck.convs.0.conv.weight", "bbox_head.cls_branches.0.bias"]
    file = save({"meta": {}, "state_dict": {name: torch.zeros(2) for name in names}})
    with pytest.raises(InputError, match=rf"{file}: .*mmdetection.*docs/weights\.md"):
        open_weights(file)


@pytest.mark.slow
def test_another_normalisation_than_the_backbones_is_refused(small: Small, tmp_path: Path) -> None:
    save_detector(small("deformable-detr-plus", 2), tmp_path / "best", ["green", "red"])
    convert_to_huggingface(tmp_path, tmp_path / "theirs")
    file = tmp_path / "theirs" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(InputError, match="image_mean"):
        open_weights(tmp_path / "theirs")
