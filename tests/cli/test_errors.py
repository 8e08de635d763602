"""Each mistake of the user ends in one line that names it and how to fix it; nothing is touched."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from od_detr.cli import command, program
from od_detr.cli.commands import COMMANDS
from od_detr.cli.demo import DemoOptions
from od_detr.errors import InputError, Interrupted, NonFiniteError

Command = Callable[..., Any]
Fingerprint = Callable[[Path], dict[str, str]]


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """Scenes to spoil."""
    return Path(shutil.copytree(scenes, tmp_path / "data"))


def assert_refused(answer: Any, pattern: str) -> None:
    assert answer.status == 2, answer
    assert answer.error.count("\n") == 1, answer.error
    assert answer.error.startswith("error: "), answer.error
    assert "Traceback" not in answer.out + answer.error
    assert re.search(pattern, answer.error), answer.error


def edited(data: Path, change: Callable[[dict], None], split: str = "train") -> None:
    content = json.loads((data / f"{split}.json").read_text())
    change(content)
    (data / f"{split}.json").write_text(json.dumps(content))


def first_box(**values: Any) -> Callable[[Path], None]:
    return lambda data: edited(data, lambda content: content["annotations"][0].update(values))


def text(content: str) -> Callable[[Path], object]:
    return lambda data: (data / "train.json").write_text(content)


def crowded(content: dict) -> None:
    pattern = content["annotations"][0]
    content["annotations"] += [pattern | {"id": 1000 + number} for number in range(20)]


def renamed(content: dict) -> None:
    content["categories"][0]["name"] = "blob"


def resized(content: dict) -> None:
    content["images"][0]["width"] += 1


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"data: no such folder; give"),
    "no annotations": (
        lambda data: (data / "train.json").unlink(),
        r"data: no train split, only val; add a folder or file for train",
    ),
    "empty file": (text(""), r"train\.json: the file is empty; export"),
    "no JSON": (text('{"images": [,]}'), r"train\.json: line 1 column 13: "),
    "a list": (text("[]"), r"train\.json: holds a list"),
    "no images": (
        text('{"images": [], "annotations": [], "categories": []}'),
        r"train\.json: '\w+' is empty; list",
    ),
    "unknown category": (
        first_box(category_id=77),
        r"train\.json: annotation \d+: category_id 77 is not among .*; ",
    ),
    "unknown image": (
        first_box(image_id=999),
        r"train\.json: annotation \d+: image_id 999 is not among .*; add",
    ),
    "NaN box": (
        first_box(bbox=[0, 0, float("nan"), 5]),
        r"train\.json: annotation \d+: bbox .*nan.* is not finite; ",
    ),
    "inverted box": (
        first_box(bbox=[30, 30, -5, 5]),
        r"train\.json: annotation \d+: bbox .* negative size; write",
    ),
    "box of three": (
        first_box(bbox=[30, 30, 5]),
        r"train\.json: annotation \d+: bbox .* is not four numbers; write",
    ),
    "other class names": (
        lambda data: edited(data, renamed, "val"),
        r"val\.json: category 1: name 'blob' has 3 boxes but is not a class .*; use",
    ),
    "missing image": (
        lambda data: next((data / "images" / "train").iterdir()).unlink(),
        r"train\.json: image \d+: file_name '.*png' is not a file below .*; add",
    ),
    "more targets than queries": (
        lambda data: edited(data, crowded),
        r"data: an image has 2\d objects, more than the 12 queries; give --queries 2\d or more",
    ),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_spoiled_data_is_refused_before_anything_is_written(
    fault: str,
    data: Path,
    tiny: list[str],
    od_detr: Command,
    fingerprint: Fingerprint,
    tmp_path: Path,
) -> None:
    spoil, pattern = SPOILED[fault]
    spoil(data)
    before = fingerprint(tmp_path)
    assert_refused(od_detr("train", "--data", data, "--output", tmp_path / "run", *tiny), pattern)
    assert fingerprint(tmp_path) == before
    assert not (tmp_path / "run").exists()


FLAGS: dict[str, tuple[list[str], str]] = {
    "unknown option": (["--hiden-dim", "32"], r"--hiden-dim: .* --hidden-dim\?"),
    "unknown nested option": (["--pd.tod", "true"], r"--pd\.tod: .* --pd\.tood\?"),
    "no number": (["--epochs", "many"], r"--epochs must be a whole number \(got 'many'\)"),
    "fraction": (["--batch-size", "1.5"], r"--batch-size must be a whole number .*'1\.5'"),
    "unknown choice": (["--recipe", "md+dp"], r"--recipe must be one of .*'md\+dp'.* md\+pd\?"),
    "unknown model": (["--model", "dino"], r"--model must be .*dino-4scale.*'dino'"),
    "no value": (["--seed"], r"--seed needs a value"),
    "a flag as value": (["--seed", "--epochs", "3"], r"--seed needs a value"),
    "stray word": (["more"], r"more: not expected here"),
    "no epochs": (["--epochs", "0"], r"--epochs must be at least 1 \(got 0\)"),
    "endless epochs": (["--epochs", "inf"], r"--epochs must be a whole number \(got 'inf'\)"),
    "no batch": (["--batch-size", "0"], r"--batch-size must be at least 1 \(got 0\)"),
    "negative rate": (["--opt.lr", "-1"], r"--opt\.lr must be at least 0 \(got -1\.0\)"),
    "rate that is none": (["--opt.lr", "nan"], r"--opt\.lr must be a finite number \(got nan\)"),
    "endless rate": (["--opt.lr", "1e999"], r"--opt\.lr must be a finite number \(got inf\)"),
    "drop at once": (["--opt.drop", "0"], r"--opt\.drop must be at least 1 .*freeze"),
    "dropout of 2": (["--dropout", "2"], r"--dropout must be between 0 and 1 \(got 2\.0\)"),
    "decay of 2": (["--ema.decay", "2"], r"--ema\.decay must be between 0 and 1"),
    "negative seed": (["--seed", "-1"], r"--seed must be between 0 and"),
    "tiny images": (["--image-size", "8"], r"--image-size must be at least 16 \(got 8\)"),
    "odd width": (["--hidden-dim", "33"], r"--hidden-dim must be a multiple of 8 .*33.* 32"),
    "stages beyond": (["--ag.stages", "[1,3]"], r"--ag\.stages: \[1, 3\] .* 2 decoder layers; "),
    "a stage by two numbers": (["--ag.stages", "[2,-1]"], r"--ag\.stages: \[2, -1\] .*once"),
    "no list": (["--ag.stages", "3"], r"--ag\.stages must be a list .*\[1, 2\] \(got '3'\)"),
    "no mapping": (["--backbone-options", "8"], r"--backbone-options must be a mapping .*'8'"),
    "unknown backbone": (["--backbone", "resnet19"], r"resnet19"),
    "no weights": (
        ["--backbone-weights", "none.pth"],
        r"--backbone-weights none\.pth: no such file; ",
    ),
    "no GPU": (["--device", "cuda"], r"--device cuda: .*GPU.* --device cpu"),
    "compiling on a CPU": (
        ["--compile"],
        r"--compile: on a cpu steps gain 5 % after 80 s .*; leave it out",
    ),
    "fp16 on a CPU": (["--precision", "fp16"], r"--precision fp16: a CPU cannot .* bf16 or 32"),
    "nothing to resume": (
        ["--resume"],
        r"last\.ckpt: no such checkpoint; give the --output of a run",
    ),
    "nothing to start from": (
        ["--init", "nowhere"],
        r"nowhere: no such file or directory; give a run",
    ),
    "no configuration": (
        ["--config", "none.yaml"],
        r"--config none\.yaml: No such file .*; give a YAML",
    ),
}


@pytest.mark.parametrize("fault", FLAGS)
def test_a_wrong_option_is_refused_by_its_name(
    fault: str,
    scenes: Path,
    tiny: list[str],
    od_detr: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault == "no GPU" and torch.cuda.is_available():
        pytest.skip("a GPU is here")
    flags, pattern = FLAGS[fault]
    monkeypatch.chdir(tmp_path)
    assert_refused(od_detr("train", "--data", scenes, "--output", "run", *tiny, *flags), pattern)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("epochs: [1", r"line \d"),
        ("- epochs", r"holds no options; write"),
        ("", r"holds no options; write"),
        ("epoch: 3", r"epoch: .* did you mean .*epochs\?"),
        ("opt:\n  lrr: 3", r"opt\.lrr: .* did you mean .*opt\.lr\?"),
        ("opt:\n  lr: fast", r"opt\.lr must be a number \(got 'fast'\)"),
        ("accumulate: 0", r"accumulate must be at least 1"),
        ("opt: 3", r"opt is a group of options .*\(got 3\)"),
        ("opt: null", r"opt is a group of options .*\(got null\)"),
        ("epochs: 3\nepochs: 4", r"epochs is given twice"),
        ("opt:\n  lr: 1\nopt.lr: 2", r"opt\.lr is given twice"),
        ("num_levels: 4\nlevels: 4", r"num_levels is given twice"),
        ("opt: &a\n  lr: *a", r"anchor .*write the value out"),
        ("a: &a [*a]", r"anchor .*write the value out"),
        ("backbone_options: " + 100000 * "[", r"nested more than 16 levels"),
        ("backbone_options: " + 30 * "{a: " + "1" + 30 * "}", r"nested more than 16 levels"),
        ("epochs: !!python/object:os.system 3", r"line 1"),
        ("? [a, b]\n: 3", r"line 1|no such option"),
        ("3: 4", r"3: no such option"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place(
    content: str, pattern: str, scenes: Path, od_detr: Command, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(content)
    run = tmp_path / "run"
    assert_refused(
        od_detr("train", "--config", tmp_path / "own.yaml", "--data", scenes, "--output", run),
        rf"--config .*own\.yaml: .*{pattern}",
    )
    assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["trian"], r"trian: .* did you mean train\?"),
        (["zzz"], r"zzz: .* see od-detr --help"),
        (["val", "run"], r"val: .* did you mean evaluate\?"),
        (["detect"], r"detect: .* did you mean predict\?"),
        (["predict", "model=x", "source=y"], r"model=x: .* did you mean RUN, given without"),
        (["predict", "run", "conf=0.5"], r"conf=0\.5: .* did you mean --threshold\?"),
        (["track", "run"], r"track: .* supervision's trackers"),
        (
            ["export", "run", "--format", "engine"],
            r"--format must be one of onnx, openvino .*TensorRT reads ONNX files",
        ),
        (["convert", "run", "--to", "onnx"], r"--to .*`od-detr export` writes ONNX"),
        (["export", "run", "--half"], r"--half: .* computes in float32"),
        (["predict", "--source", "a"], r"--source: .* did you mean SOURCES, given without a name"),
        (["predict", "a", "b", "--save-txt"], r"--save-txt: .* did you mean --yolo\?"),
        (["predict", "a", "b", "--imgsz", "640"], r"--imgsz: .* resized as in training"),
        (["convert", "a", "--imgsz", "640"], r"--imgsz: .* train and evaluate have --image-size"),
        (["evaluate", "a", "--optimizer", "SGD"], r"--optimizer: .*`od-detr train` has AdamW only"),
        (["train", "--data", "x", "--device", "gpu"], r"--device .* did you mean cuda\?"),
        (["train", "--data", "x", "--model", "dino"], r"--model .* did you mean dino-4scale\?"),
        (["train", "--resume", "--output", "nowhere"], r"nowhere: holds no run .* --output"),
        (["train"], r"--data is missing; usage: od-detr train"),
        (["train", "--resume", "r/cc"], r"r/cc: .*; write --resume --output r/cc$"),
        (["train", "--resume", "--output", "r", "cc"], r"cc: .*; options begin with --$"),
        (["train", "--resume", "True", "--output", "r"], r"r: holds no run to resume"),
        (["train", "--qpad", "x"], r"--qpad is a group of options; give one of --query-prior\."),
        (["train", "."], r"\.: not expected here; write --data \.$"),
        (["train", "--data", "x", "."], r"\.: not expected here; options begin with --$"),
        (["evaluate", "run", "."], r"\.: not expected here; write --data \.$"),
        (["evaluate"], r"RUN is missing; usage: od-detr evaluate RUN"),
        (["predict"], r"RUN and SOURCES are missing; usage: od-detr predict RUN"),
        (["train", "--data", "x", "--augment", "mosaic"], r"--augment .* did you mean strong\?"),
        (["evaluate", "--run", "x"], r"--run: give it without a name"),
        (["evaluate", "nowhere", "--data", "x"], r"nowhere: no such file or directory; give a run"),
        (["predict", "nowhere", "x.jpg"], r"nowhere: no such file or directory; give a run"),
        (["predict", "a", "x.jpg", "--threshold", "2"], r"--threshold must be between 0 and 1"),
        (["evaluate", "a", "--data", "x", "--batch-size", "0"], r"--batch-size must be at least 1"),
        (["evaluate", "a", "--data", "x", "--weights", "worst"], r"--weights must be one of best"),
        (["benchmark", "step", "--rounds", "0"], r"--rounds must be at least 1"),
    ],
)
def test_a_wrong_command_is_refused(
    arguments: list[str],
    pattern: str,
    od_detr: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(od_detr(*arguments), pattern)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_never_written_over(
    trained: Path,
    scenes: Path,
    tiny: list[str],
    od_detr: Command,
    fingerprint: Fingerprint,
    tmp_path: Path,
) -> None:
    before = fingerprint(trained)
    assert_refused(
        od_detr("train", "--data", scenes, "--output", trained, *tiny),
        r"last\.ckpt: a run is there already; continue it with --resume, or give another --output",
    )
    assert_refused(
        od_detr(
            "train", "--data", scenes, "--output", trained, *tiny, "--resume", "--hidden-dim", "64"
        ),
        r"--hidden-dim is 64 but was 32 .*; continue it with --config .*config\.yaml --resume",
    )
    assert fingerprint(trained) == before
    own = tmp_path / "config.yaml"
    own.write_text("epochs: 3  # my own\n")
    assert_refused(
        od_detr("train", "--data", scenes, "--output", tmp_path, *tiny),
        r"config\.yaml: exists, without a last\.ckpt .*; give",
    )
    assert own.read_text() == "epochs: 3  # my own\n"
    assert list(tmp_path.iterdir()) == [own]
    assert_refused(
        od_detr("train", "--data", scenes, "--output", own, *tiny),
        r"config\.yaml: is a file; give a folder",
    )


HEAD = "decoder.heads.classes.0.weight"


def spoiled_weights(part: str, weights: Path) -> None:
    tensors = load_file(weights)
    if part == "shape":
        save_file(tensors | {HEAD: tensors[HEAD][:2].clone()}, weights)
    else:
        del tensors[HEAD]
        save_file(tensors, weights)


def spoiled_run(trained: Path, folder: Path, part: str) -> Path:
    """A copy of a run in which one part is damaged."""
    run = Path(shutil.copytree(trained, folder / "spoiled"))
    weights, config = run / "best" / "model.safetensors", run / "best" / "config.json"
    if part in ("shape", "missing"):
        spoiled_weights(part, weights)
    elif part == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif part == "config":
        config.write_text("{")
    elif part in ("model", "unknown"):
        content = json.loads(config.read_text())
        content["detector"] |= {"model": "yolo"} if part == "model" else {"tentacles": 8}
        config.write_text(json.dumps(content))
    else:
        for name in ("last.ckpt", "previous.ckpt"):
            (run / name).write_bytes(b"PK\x03\x04 half")
    return run


@pytest.mark.parametrize(
    ("part", "weights", "pattern"),
    [
        (
            "shape",
            "best",
            r"model\.safetensors: 'decoder\.heads\.classes\.0\.weight' is \(2, 32\), "
            r".*\(5, 32\); give",
        ),
        (
            "missing",
            "best",
            r"model\.safetensors: .*decoder\.heads\.classes\.0\.weight",
        ),
        ("cut", "best", r"model\.safetensors: .*damaged"),
        ("config", "best", r"config\.json: "),
        ("model", "best", r"config\.json: .*yolo"),
        ("unknown", "best", r"config\.json: .*tentacles"),
        ("last", "teacher", r"last\.ckpt is damaged: .*previous\.ckpt is damaged"),
    ],
)
def test_a_damaged_run_is_refused_by_its_file(
    part: str,
    weights: str,
    pattern: str,
    trained: Path,
    scenes: Path,
    od_detr: Command,
    tmp_path: Path,
) -> None:
    run = spoiled_run(trained, tmp_path, part)
    assert_refused(od_detr("evaluate", run, "--data", scenes, "--weights", weights), pattern)


def test_a_detector_of_other_classes_is_refused_by_name(
    trained: Path, data: Path, od_detr: Command, fingerprint: Fingerprint
) -> None:
    edited(data, renamed, "val")
    before = fingerprint(data)
    pattern = (
        r"val\.json: category \d+: name 'blob' is not a class of the detector; "
        "use its class names disc, "
    )
    assert_refused(od_detr("evaluate", trained, "--data", data), pattern)
    assert fingerprint(data) == before


def test_a_wrong_source_is_refused_and_no_picture_drawn_over(
    trained: Path, scenes: Path, od_detr: Command, fingerprint: Fingerprint, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    mine.mkdir()
    (mine / "scene.jpg").write_bytes(next((scenes / "images" / "val").iterdir()).read_bytes())
    (tmp_path / "empty").mkdir()
    before = fingerprint(tmp_path)
    for source, output, pattern in (
        (tmp_path / "none.jpg", "out", r"none\.jpg: no such file, folder or glob; give"),
        (tmp_path / "empty", "out", r"empty: holds no image or video; known are"),
        (
            mine,
            "photos",
            r"scene\.jpg: is one of the images and would be overwritten; give another --output",
        ),
    ):
        assert_refused(od_detr("predict", trained, source, "--output", tmp_path / output), pattern)
    assert fingerprint(tmp_path) == before
    assert not (tmp_path / "out").exists()
    (mine / "cut.png").write_bytes((mine / "scene.jpg").read_bytes()[:300])
    answer = od_detr("predict", trained, mine / "cut.png", "--output", tmp_path / "out")
    skipped = r"skipped: \S*cut\.png: cannot be read as an image \(.*\); replace or remove the file"
    assert answer.status == 4, answer
    assert re.fullmatch(skipped, answer.error.strip()), answer


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_in_mid_training_stops_it_in_one_line_with_the_checkpoint_intact(
    workers: int, data: Path, tiny: list[str], od_detr: Command, tmp_path: Path
) -> None:
    flags = ["train", "--data", data, "--output", tmp_path / "run", *tiny, "--workers", workers]
    assert od_detr(*flags, "--epochs", 1).status == 0
    saved = (tmp_path / "run" / "last.ckpt").read_bytes()
    victim = sorted((data / "images" / "train").iterdir())[5]
    victim.write_bytes(victim.read_bytes()[:400])
    answer = od_detr(*flags, "--epochs", 2, "--resume")
    assert_refused(
        answer,
        rf"train\.json: image \d+: .*{victim.name}: cannot be read as an image .*; "
        "replace or remove",
    )
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == saved
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.slow
def test_weights_that_cannot_be_fetched_are_told_in_one_line(
    scenes: Path, tiny: list[str], tmp_path: Path
) -> None:
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "TORCH_HOME": str(tmp_path / "torch"),
    }
    command = [
        "train",
        "--data",
        str(scenes),
        "--output",
        str(tmp_path / "run"),
        *tiny,
        "--backbone-options",
        "{}",
        "--backbone-weights",
        "imagenet",
    ]
    result = subprocess.run(
        [sys.executable, "-m", "od_detr", *command],
        env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert re.fullmatch(
        r"error: --backbone-weights imagenet: the weights of resnet18\S* cannot be "
        r"fetched .*; .*\n",
        result.stderr,
    ), result.stderr
    assert not (tmp_path / "run").exists()


def test_debug_shows_where_an_error_comes_from(od_detr: Command) -> None:
    with pytest.raises(ValueError, match="trian"):
        od_detr("trian", "--debug")


@pytest.mark.parametrize(
    ("flag", "ours"),
    [
        ("--batch", "--batch-size"),
        ("--lr", "--opt.lr"),
        ("--lr0", "--opt.lr"),
        ("--imgsz", "--image-size"),
        ("--weights", "--init"),
        ("--name", "--output"),
        ("--project", "--output"),
        ("--val", "--eval.every"),
        ("--epoch", "--epochs"),
        ("--match", "--match.cost"),
        ("--conf", "od-detr predict` has --threshold"),
        ("--save", "od-detr predict` always writes drawn copies"),
        ("--show", "od-detr predict` writes drawn copies"),
        ("imgsz=640", "--image-size"),
        ("epochs=3", "--epochs 3"),
        ("resume=True", "--resume true"),
        ("-o", "--help"),
    ],
)
def test_names_of_other_packages_lead_to_ours(flag: str, ours: str, od_detr: Command) -> None:
    answer = od_detr("train", "--data", "x", flag, "4")
    assert_refused(answer, re.escape(ours))
    assert "config" not in answer.error


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (InputError("--epochs is\nwrong"), 2, "error: --epochs is wrong"),
        (NonFiniteError("loss is nan"), 3, "error: loss is nan"),
        (Interrupted("stopped; saved", 143), 143, "stopped; saved"),
        (Interrupted("stopped; saved"), 130, "stopped; saved"),
        (FloatingPointError("loss is nan"), 1, "error: loss is nan"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_way_to_end_has_its_status_and_one_line(
    raised: BaseException,
    status: int,
    line: str,
    od_detr: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(options: DemoOptions) -> dict[str, Any]:
        raise raised

    monkeypatch.setitem(COMMANDS, "demo", command.Command(DemoOptions, stop))
    answer = od_detr("demo", "--json")
    assert (answer.status, answer.error.strip()) == (status, line)
    assert answer.out == ""


@pytest.mark.usefixtures("signals_heard")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_and_closes_its_files(
    name: str, status: int, od_detr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, closed = getattr(signal, name), []

    def stopped(options: DemoOptions) -> dict[str, Any]:
        try:
            signal.raise_signal(number)
        finally:
            closed.append(True)
        raise AssertionError("unreachable")

    monkeypatch.setitem(COMMANDS, "demo", command.Command(DemoOptions, stopped))
    answer = od_detr("demo")
    assert (answer.status, answer.error) == (status, "stopped\n")
    assert closed
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize(("skipped", "status"), [([], 0), (["a.jpg"], 4)])
def test_skipped_inputs_have_a_status_of_their_own(
    skipped: list[str], status: int, od_detr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command.Command(DemoOptions, lambda options: {"skipped": skipped})
    monkeypatch.setitem(COMMANDS, "demo", done)
    answer = od_detr("demo", "--json")
    assert (answer.status, answer.json) == (status, {"skipped": skipped})


def test_a_reader_that_has_enough_ends_a_command_quietly() -> None:
    """As `od-detr train --help-all | head -1` does."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "od_detr", "--version"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 128 + 13
    assert done.stderr == "stopped: nothing reads the output any more\n"


def test_another_broken_pipe_is_not_taken_for_it() -> None:
    with pytest.raises(BrokenPipeError), program.files_explained():
        raise BrokenPipeError("of a process that loads images")


def test_a_full_disk_is_one_line_though_the_system_names_no_file() -> None:
    line = r"^a file: cannot be written \(.+\); free some space or give another path$"
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with pytest.raises(InputError, match=line), program.files_explained():
            raise OSError(number, os.strerror(number))
    with pytest.raises(InputError, match=r"^a: cannot be written"), program.files_explained():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a")
    with pytest.raises(OSError, match="nobody knows"), program.files_explained():
        raise OSError(errno.EIO, "nobody knows")


def test_an_output_that_is_full_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "od_detr", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: standard output: cannot be written .*; free .*\n", done.stderr)


def test_a_name_that_is_not_utf8_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "utf-8"))
    monkeypatch.setattr(sys, "argv", ["od-detr", "--version"])
    assert program.main() == 0
    print(os.fsdecode(b"caf\xe9.jpg"), flush=True)
    assert printed.getvalue().endswith(b"caf\\udce9.jpg\n")
