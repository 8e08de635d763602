"""A detector is saved with a card that says what its run recorded, and goes to the hub and back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HTTPError

from od_detr import Detector
from od_detr.detectors import DetectionTransformer, save_detector
from od_detr.errors import InputError
from od_detr.integrations.weights.opening import open_weights
from od_detr.integrations.weights.publishing.card import model_card
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.record.run_config import write_config

pytestmark = pytest.mark.slow

Small = Callable[..., DetectionTransformer]
COMMIT = "0123456789" * 4
METRICS = """\
epoch,train/loss,val/AP,val/AP50,val/AP75,val/teacher/AP,val/teacher/AP50
1,9.0,0.10,0.20,0.05,0.11,0.21
2,8.0,0.30,0.52,0.25,0.29,0.51
"""


@pytest.fixture
def run(small: Small, tmp_path: Path) -> Path:
    """A run of two epochs, whose second one is best, as training leaves it."""
    files = RunFiles(tmp_path / "run")
    facts = {"category_ids": [2, 5], "image_size": 96, "threshold": 0.35}
    facts |= {"weights": "online", "epoch": 2, "AP": 0.3}
    save_detector(small("dino-4scale", 2, narrow=True), files.best, ["green", "red"], **facts)
    options = TrainOptions(
        data=str(tmp_path / "secret place" / "street signs"),
        model="dino-4scale",
        init="hf:some/detector",
        epochs=2,
    )
    write_config(options, files.config)
    files.metrics.write_text(METRICS)
    return files.directory


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub without network: what is uploaded is found in the local cache."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def create(api: HfApi, repo_id: str, **_: object) -> SimpleNamespace:
        return SimpleNamespace(repo_id=repo_id)

    def files(repo_id: str) -> Path:
        return cache / f"models--{repo_id.replace('/', '--')}" / "snapshots" / COMMIT

    def exists(api: HfApi, repo_id: str, filename: str) -> bool:
        return (files(repo_id) / filename).is_file()

    def upload(
        api: HfApi, repo_id: str, folder_path: str, ignore_patterns: list[str] | None, **_: object
    ) -> None:
        ignored = shutil.ignore_patterns(*(ignore_patterns or []))
        shutil.copytree(folder_path, files(repo_id), ignore=ignored, dirs_exist_ok=True)
        refs = files(repo_id).parents[1] / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "main").write_text(COMMIT)

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "file_exists", exists)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    return cache


def test_a_pushed_detector_comes_back_by_its_name(run: Path, hub: Path) -> None:
    address = Detector.from_pretrained(run, device="cpu").push_to_hub("some/signs")
    assert address == "https://huggingface.co/some/signs"
    back = Detector.from_pretrained("some/signs", device="cpu")
    assert list(back.classes) == ["green", "red"]
    before, known = open_weights(run)
    after, config = open_weights("hf:some/signs")
    weights = after.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in before.state_dict().items())
    for name in ("category_ids", "image_size", "threshold", "AP"):
        assert config[name] == known[name]


def test_the_card_says_what_the_run_recorded_and_no_path(run: Path, hub: Path) -> None:
    Detector.from_pretrained(run, device="cpu").push_to_hub("some/signs")
    folder = hub / "models--some--signs" / "snapshots" / COMMIT
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "od-detr"
    assert card.data.base_model == "some/detector"
    (result,) = card.data.eval_results
    assert (result.metric_value, result.dataset_name) == (30.0, "street signs")
    for said in ("some/signs", "green, red", "street signs", "| 30.0 | 52.0 | 25.0 |", "0.35"):
        assert said in card.text
    assert "secret place" not in card.content
    assert (folder / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("data", [".", "../street signs", "images/.."])
def test_the_card_names_data_and_detector_without_the_way_to_them(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "street signs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    config = {"detector": {"model": "dino-4scale", "backbone": "resnet18"}, "classes": ["red"]}
    options = {"data": data, "init": "hf:some/detector@v2"}
    card = ModelCard(model_card("some/signs", config | {"AP": 0.3}, options, []))
    assert card.data.base_model == "some/detector"
    assert card.data.eval_results[0].dataset_name == "street signs"
    assert "| data | `street signs` |" in card.text
    assert "`some/detector@v2`" in card.text


def test_the_python_of_the_card_runs(run: Path, hub: Path, street: Path) -> None:
    Detector.from_pretrained(run, device="cpu").push_to_hub("some/signs")
    folder = hub / "models--some--signs" / "snapshots" / COMMIT
    block = (folder / "README.md").read_text().split("installed:")[1].split("##")[0]
    code = "\n".join(line.strip() for line in block.splitlines())
    assert code.count("\n") >= 4
    exec(code, {})


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The image that examples name, in the current folder."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "grey").save("street.jpg")
    return tmp_path / "street.jpg"


def test_a_saved_folder_without_a_run_has_a_card_without_training(
    small: Small, tmp_path: Path
) -> None:
    save_detector(small("deformable-detr-plus", 2, narrow=True), tmp_path / "det", ["green", "red"])
    Detector.from_pretrained(tmp_path / "det", device="cpu").save_pretrained(tmp_path / "copy")
    text = (tmp_path / "copy" / "README.md").read_text()
    assert "green, red" in text
    assert "## Training" not in text
    assert Detector.from_pretrained(tmp_path / "copy", device="cpu").classes == ["green", "red"]


def test_a_card_that_someone_wrote_is_kept(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    Detector.from_pretrained(run, device="cpu").save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"
    assert (folder / "model.safetensors").is_file()


def test_a_card_that_someone_edited_on_the_hub_is_kept(run: Path, hub: Path) -> None:
    detector = Detector.from_pretrained(run, device="cpu")
    detector.push_to_hub("some/signs")
    folder = hub / "models--some--signs" / "snapshots" / COMMIT
    (folder / "README.md").write_text("mine")
    (folder / "config.json").write_text("")
    detector.push_to_hub("some/signs")
    assert (folder / "README.md").read_text() == "mine"
    assert (folder / "config.json").stat().st_size > 0


@pytest.mark.parametrize("failure", [ConnectionError, HTTPError])
def test_a_hub_out_of_reach_is_reported_on_one_line(
    failure: type[Exception], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise failure("cannot reach the hub\nat all")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(InputError, match=r"some/signs: .*hf auth login") as refused:
        Detector.from_pretrained(run, device="cpu").push_to_hub("some/signs")
    assert "\n" not in str(refused.value)
