"""An exported file gives what the detector gives, for images of any size, without this package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from tests.docs.test_examples import ROOT, blocks
from torch import nn

from od_detr import Detector
from od_detr.cli import main
from od_detr.data.transforms import fitted
from od_detr.detectors import build_detector, save_detector
from od_detr.errors import InputError
from od_detr.inference import export
from od_detr.inference.predictor import Predictor

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "backbone_options": {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)},
    "hidden_dim": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "queries": 60,
    "feedforward": 16,
}
CLASSES = ["Fußgänger", "car"]
SIZES = {"threshold": 0.0, "image_size": 72}


def saved(model: str, folder: Path) -> Path:
    torch.manual_seed(1)
    levels: dict[str, Any] = (
        {} if model.startswith("dino") else {"num_levels": 2, "strides": (16, 32)}
    )
    detector = build_detector(model, len(CLASSES), **SMALL, **levels)
    for parameter in detector.parameters():  # scores and boxes that differ from query to query
        torch.nn.init.normal_(parameter, std=0.3)
    save_detector(detector, folder, CLASSES, **SIZES)
    return folder


def recorded(folder: Path) -> export.PixelsToDetections:
    """What the file of a saved detector computes; processors that can predict in bfloat16."""
    return export.PixelsToDetections(
        Predictor.from_run(folder, device="cpu", precision="32").detector
    )


@pytest.fixture(
    scope="module", params=["deformable-detr-plus", "dab-deformable-detr", "dino-4scale"]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved detector, and its exported file `mine.onnx`."""
    folder = saved(request.param, tmp_path_factory.mktemp("exported"))
    # In a process of its own: the shapes that tests check are symbols while a graph is recorded.
    command = [sys.executable, "-m", "od_detr", "export", folder, "--output", folder / "mine.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"within \d\.\de-0[678] of PyTorch's and 100%", done.stdout), done.stdout
    assert done.stderr == ""
    return folder


@pytest.mark.slow
def test_the_example_finds_what_predict_finds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that are wider than the recorded one, taller, turned, and long beyond the limit."""
    monkeypatch.chdir(folder)
    detector = Detector.from_pretrained(folder, device="cpu", precision="32")
    example = next(each for each in blocks(ROOT / "docs/export.md") if each[0] == "import json")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for size, turn in [((96, 72), 1), ((72, 110), 6), ((400, 60), 1), ((107, 61), 1)]:
        image = Image.fromarray(pixels).resize(size)
        image.getexif()[ExifTags.Base.Orientation] = turn
        image.save("street.png", exif=image.getexif())
        names: dict[str, Any] = {}
        exec("\n".join(example).replace("street.jpg", "street.png"), names)
        expected = detector.predict("street.png")
        np.testing.assert_allclose(names["scores"][0], expected.confidence, atol=5e-3)
        same = np.array(names["names"]) == expected.data["class_name"]
        width, height = names["image"].size
        assert names["pixels"].shape[1:] == fitted(height, width, 72, 120)
        near = np.abs(names["boxes"].clip(0, [width, height] * 2) - expected.xyxy).max(1) < 1
        assert np.mean(same & near) > 0.8, size


@pytest.mark.slow
def test_the_file_is_whole_standard_onnx(folder: Path) -> None:
    model = onnx.load(folder / "mine.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert not {"SplitToSequence", "SequenceAt", "Loop"} & {
        each.op_type for each in model.graph.node
    }
    about = {each.key: json.loads(each.value) for each in model.metadata_props}
    assert about == {"classes": CLASSES, "longest_side": 120} | SIZES
    assert str(ROOT).encode() not in (folder / "mine.onnx").read_bytes()


@pytest.mark.slow
def test_a_batch_of_another_size_gives_what_pytorch_gives(folder: Path) -> None:
    network = recorded(folder)
    for shape in [(1, 3, 50, 200), (3, 3, 131, 77), (1, 3, 20, 20)]:
        found = export.compared(network, export.running(folder / "mine.onnx"), shape)
        assert found.score_difference < 1e-5
        assert found.agreeing > 0.99


@pytest.mark.slow
def test_openvino_gives_what_pytorch_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    folder = saved("deformable-detr-plus", tmp_path)
    file = folder / "mine.xml"
    command = [sys.executable, "-m", "od_detr", "export", folder, "--output", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"within \d\.\de-0[678] of PyTorch's and 100%", done.stdout), done.stdout
    assert sorted(each.suffix for each in folder.glob("mine.*")) == [".bin", ".xml"]
    example = [each for each in blocks(ROOT / "docs/export.md") if each[0] == "import json"][1]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 90, 72), dtype=np.uint8)
    names: dict[str, Any] = {"pixels": pixels}
    exec("\n".join(example), names)
    assert names["about"] == {"classes": CLASSES, "longest_side": 120} | SIZES
    _, scores, _ = recorded(folder)(torch.from_numpy(pixels[None]))
    np.testing.assert_allclose(names["scores"], scores.detach(), atol=0.05)


@pytest.mark.parametrize(
    ("output", "format", "file"),
    [
        (None, None, "model.onnx"),
        (None, "openvino", "model.xml"),
        ("a/b.XML", None, "a/b.XML"),
        ("b.onnx", "onnx", "b.onnx"),
    ],
)
def test_the_suffix_of_the_file_is_the_format(
    output: str | None, format: str | None, file: str
) -> None:
    assert export.file_of(output, format) == Path(file)


@pytest.mark.parametrize(
    ("output", "format"),
    [("a.onnx", "openvino"), ("a.xml", "onnx"), ("a.engine", None), ("a", None)],
)
def test_the_suffix_of_another_format_is_refused(output: str, format: str | None) -> None:
    with pytest.raises(InputError, match=rf"--output {output}: must end with \."):
        export.file_of(output, format)


def test_a_file_that_gives_other_results_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved("deformable-detr-plus", tmp_path)
    detector = Detector(source, Predictor.from_run(source, device="cpu", precision="bf16"))

    def record(network: nn.Module) -> None:
        assert {each.dtype for each in network.parameters()} == {torch.float32}

    def write(_: None, about: dict[str, str], files: list[Path]) -> None:
        assert about.keys() == {"classes", "image_size", "longest_side", "threshold"}
        for file in files:
            file.write_bytes(b"new")

    monkeypatch.setattr(export, "_recorded", record)
    monkeypatch.setattr(export, "check_installed", lambda _: None)
    monkeypatch.setattr(export, "write_onnx", write)
    monkeypatch.setattr(export, "write_openvino", write)
    monkeypatch.setattr(export, "compared", lambda *_: export.Comparison(0.5, agreeing=1.0))
    for name, files in (("new.onnx", ["new.onnx"]), ("new.xml", ["new.xml", "new.bin"])):
        for file in files:
            (tmp_path / file).write_bytes(b"old")
        with pytest.raises(RuntimeError, match=r"wrong by 0\.5"):
            detector.export(tmp_path / name)
        assert {(tmp_path / file).read_bytes() for file in files} == {b"old"}
        assert not list(tmp_path.glob("*.part"))


def test_without_the_packages_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector.from_pretrained(saved("deformable-detr-plus", tmp_path), device="cpu")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"onnxscript is not installed; pip install 'od-detr\[ex"):
        detector.export(tmp_path / "new.onnx")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "openvino", None)
    missing = r"openvino is not installed; pip install 'od-detr\[export,openvino\]'"
    with pytest.raises(InputError, match=missing):
        detector.export(tmp_path / "new.xml")


def test_a_folder_of_the_name_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector.from_pretrained(saved("deformable-detr-plus", tmp_path), device="cpu")
    monkeypatch.setattr(export, "check_installed", lambda _: None)
    (tmp_path / "new.bin").write_bytes(b"old")
    (tmp_path / "new.xml").mkdir()
    (tmp_path / "other.bin").mkdir()
    for name in ("new.xml", "other.xml"):
        with pytest.raises(InputError, match=r"(new\.xml|other\.bin): is a folder; give another"):
            detector.export(tmp_path / name)
    assert (tmp_path / "new.bin").read_bytes() == b"old"


@pytest.mark.parametrize("fails", ["new.xml", "new.bin"])
def test_a_graph_is_never_left_with_the_weights_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    detector = Detector.from_pretrained(saved("deformable-detr-plus", tmp_path), device="cpu")
    files = {name: tmp_path / name for name in ("new.xml", "new.bin")}
    for file in files.values():
        file.write_text("old")
    replace = os.replace

    def stopped(source: Path, target: Path) -> None:
        if Path(target).name == fails:
            raise KeyboardInterrupt
        replace(source, target)

    def write(_: None, about: object, partial: list[Path]) -> None:
        for file in partial:
            file.write_text("new")

    monkeypatch.setattr(export, "check_installed", lambda _: None)
    monkeypatch.setattr(export, "_recorded", lambda _: None)
    monkeypatch.setattr(export, "write_openvino", write)
    monkeypatch.setattr(export, "compared", lambda *_: export.Comparison(0.0, agreeing=1.0))
    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        detector.export(files["new.xml"])
    left = {name: file.read_text() for name, file in files.items() if file.exists()}
    assert "new.xml" not in left or len(set(left.values())) == 1
    monkeypatch.setattr(os, "replace", replace)
    detector.export(files["new.xml"])
    assert {file.read_text() for file in files.values()} == {"new"}


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved("deformable-detr-plus", tmp_path / "saved")
    (tmp_path / "file").touch()
    assert main(["export", str(source), "--output", str(tmp_path / "file" / "x.onnx")]) == 2
    assert "cannot be written" in capsys.readouterr().err
