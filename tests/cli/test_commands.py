"""What each command does, from its arguments to its last line."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from od_detr import Detector
from od_detr.architectures import ARCHITECTURES
from od_detr.cli.commands import COMMANDS
from od_detr.cli.parsing.parser import parse
from od_detr.cli.program import SPINS
from od_detr.cli.reference import page
from od_detr.cli.train import TrainCommand
from od_detr.data.scenes import CLASSES
from od_detr.errors import InputError, Interrupted
from od_detr.ops import selected_backend
from od_detr.options import SIZES, OptimizerOptions, TrainOptions
from od_detr.options.fields import options_of

ROOT = Path(__file__).parents[2]
Command = Callable[..., Any]


def parsed(*arguments: str) -> TrainCommand:
    return parse("train", TrainCommand, ["--data", "x", *arguments], reads_config=True)


def test_help_and_overview_need_neither_torch_nor_lightning() -> None:
    script = (
        "import sys\nfrom od_detr.cli import main\nassert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'lightning', 'timm', 'supervision', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert all(re.search(rf"^  {name} +\S", result.stdout, re.MULTILINE) for name in COMMANDS)


def test_a_process_does_not_search_for_cycles_before_it_ends() -> None:
    """It would take seconds after a training, and a scheduler waits for ten of them."""
    script = (
        "import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "from od_detr.cli import main\nmain()"
    )
    command = [sys.executable, "-c", script, "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize(("given", "kept"), [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_wait_briefly_for_each_other_unless_the_user_says_otherwise(
    given: dict[str, str], kept: str
) -> None:
    """OpenMP reads it when torch is loaded, so it must be set before."""
    script = (
        "import atexit, os, sys\nfrom od_detr.cli import main\n"
        "atexit.register(lambda: print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules))\n"
        "main()"
    )
    plain = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-c", script, "--version"]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env=plain | given
    )
    assert result.stdout.splitlines()[-1] == f"{kept} False"


def test_help_of_a_command_is_its_own(od_detr: Command) -> None:
    assert od_detr("help", "predict").out == od_detr("predict", "--help").out


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_option_of_a_command_is_explained_as_it_is_typed(name: str, od_detr: Command) -> None:
    for flag in ("--help", "-h", "--help-all"):
        answer = od_detr(name, flag)
        assert (answer.status, answer.error) == (0, "")
        assert answer.out.startswith(f"usage: od-detr {name}")
        assert not re.search(r"--[\w.]+_\w", answer.out)
        assert "Eq (" not in answer.out  # facts stand after a sentence, not after an abbreviation
        assert "null" not in answer.out
        assert max(map(len, answer.out.splitlines())) <= 100
    for option in options_of(COMMANDS[name].options).values():
        shown = option.name.upper() if option.about.positional else option.flag
        assert re.search(rf"^  {re.escape(shown)}\b", answer.out, re.MULTILINE), shown
    assert "--json" in answer.out


def test_the_help_of_train_fits_on_two_screens_and_shows_defaults_as_values(
    od_detr: Command,
) -> None:
    text = od_detr("train", "--help").out
    flags = re.findall(r"^  (--[\w.-]+)", text, re.MULTILINE)
    assert len(text.splitlines()) <= 100
    assert 20 <= len(flags) <= 35
    assert {"--data", "--recipe", "--epochs", "--opt.lr"} <= set(flags)
    assert not [flag for flag in flags if flag.startswith(("--md.", "--pd.", "--ag."))]
    assert "Number of encoder layers (default: 6)." in text
    assert "Number of object queries (default: 300; DINO: 900)." in text


def test_the_page_of_options_is_what_the_code_generates() -> None:
    assert (ROOT / "docs" / "options.md").read_text() == page(), (
        "run python -m od_detr.cli.reference > docs/options.md"
    )


# `od_detr.detectors.dino` is the builder, not the module.
deformable_detr, dab_deformable_detr, dino = (
    importlib.import_module(f"od_detr.detectors.{name}")
    for name in ("deformable_detr", "dab_deformable_detr", "dino")
)
BUILT = {
    "deformable-detr-plus": deformable_detr.SIZES,
    "dab-deformable-detr": dab_deformable_detr.SIZES,
    "dino-4scale": dino.SIZES[4],
    "dino-5scale": dino.SIZES[5],
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_defaults_that_help_shows_are_those_of_the_architectures(name: str) -> None:
    """`300; DINO: 900` is 900 for DINO and 300 otherwise."""
    architecture = ARCHITECTURES[name]
    actual = {size: getattr(BUILT[name], size) for size in SIZES} | {
        "opt.lr": architecture.lr,
        "qfl.class_weight": architecture.class_weight,
        "eval.topk": architecture.top_k,
    }
    for option, value in actual.items():
        assert shown_for(name, options_of(TrainOptions)[option].about.shown) == value, option


def shown_for(model: str, text: str) -> float:
    """The number that a default such as `2e-4; DAB and DINO: 1e-4` states for an architecture."""
    usual, _, exception = text.partition("; ")
    names, _, value = exception.partition(": ")
    matches = [part for part in names.lower().split(" and ") if part and model.startswith(part)]
    return float(value if matches else usual)


def test_hyphens_and_underscores_name_the_same_option() -> None:
    assert parsed("--batch-size", "7", "--pd.iou-from=main") == parsed(
        "--batch_size=7", "--pd.iou_from", "main"
    )
    assert parsed("--qfl.class-weight", "1.5").qfl.class_weight == 1.5


def test_a_flag_without_a_value_means_true() -> None:
    assert parsed("--resume").resume
    assert parsed("--resume", "--json").json
    assert not parsed("--resume", "false").resume
    assert not parsed("--resume=false").resume
    assert parsed("--md.wd-cls", "--epochs", "3").md.wd_cls
    assert parsed("--pd.tood", "false").pd.tood is False


def test_a_flag_typed_after_a_configuration_wins(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        yaml.safe_dump({"epochs": 3, "opt": {"lr": 0.5, "drop": 2}, "ag": {"stages": [1, 2]}})
    )
    options = parsed("--config", str(file), "--epochs", "9", "--opt.drop", "7")
    assert (options.epochs, options.opt.lr, options.opt.drop, options.ag.stages) == (
        9,
        0.5,
        7,
        (1, 2),
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--levels=3", "--num-levels=3"),
        ("--enc.loss=focal", "--encoder.loss=focal"),
        ("--enc.md", "--encoder.md"),
        ("--dn.loss=focal", "--denoising.loss=focal"),
        ("--qpad.on", "--query-prior.on"),
        ("--qpad.match=rematch", "--query-prior.match=rematch"),
        ("--pd.pe=student", "--pd.position=student"),
        ("--pd.ref=student", "--pd.anchors=student"),
        ("--ag.pe=sine", "--ag.position=sine"),
        ("--ag.ref=box", "--ag.anchors=box"),
        ("--ag.dup=keep", "--ag.duplicates=keep"),
        ("--qfl.lambda=1.5", "--qfl.class-weight=1.5"),
    ],
)
def test_an_earlier_name_is_accepted_and_says_so_in_one_line(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = parsed(new)
    assert capsys.readouterr().err == ""
    assert parsed(old) == expected != parsed()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert old.partition("=")[0] in told
    assert new.partition("=")[0] in told


def test_the_program_is_a_module(tmp_path: Path) -> None:
    for module in ("od_detr", "od_detr.cli"):
        command = [sys.executable, "-m", module, "--version"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert re.match(r"\d+\.\d+", done.stdout)


def test_env_says_what_a_bug_report_needs(od_detr: Command) -> None:
    answer = od_detr("env", "--json")
    assert (answer.status, answer.error) == (0, "")
    facts = answer.json
    assert facts["versions"]["torch"] == torch.__version__
    assert {"python", "od-detr", "timm", "transformers"} <= facts["versions"].keys()
    assert facts["machine"]["cores"] >= 1
    assert facts["machine"]["memory_bytes"] > 2**20
    assert facts["devices"]["cpu"]["bf16"] in (True, False)
    assert facts["attention"]["cpu"] == selected_backend("cpu")
    for name in ("torch", "C++ compiler", "attention on cpu", "memory"):
        assert re.search(rf"^{re.escape(name)}: +\S", answer.out, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.usefixtures("estimates")
def test_train_tells_of_its_run_and_nothing_else(
    scenes: Path, tiny: list[str], od_detr: Command, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    content = json.loads((data / "train.json").read_text())
    content["annotations"][0] |= {"iscrowd": 1}
    content["annotations"][1]["bbox"][2] = 0
    content["annotations"][2]["bbox"] = [-5, -5, 30, 30]
    (data / "train.json").write_text(json.dumps(content))
    answer = od_detr(
        "train", "--data", data, "--output", tmp_path / "run", "--epochs", 2, *tiny, "--json"
    )
    assert (answer.status, answer.error) == (0, "")
    lines = answer.out.splitlines()
    boxes = len(content["annotations"])
    assert lines[0].startswith(
        f"train: COCO data in {data / 'train.json'}: 12 images, {boxes} boxes, 5 classes ("
    )
    assert lines[1] == (
        f"{data / 'train.json'}: 1 crowd box and 1 box without area dropped, "
        "1 box clipped to the image"
    )
    assert lines[2].startswith(f"val: COCO data in {data / 'val.json'}: 4 images, ")
    opening = ["device", "data", "network", "training", "rate", "cost", "output"]
    begin = next(place for place, line in enumerate(lines) if line.startswith("device:"))
    assert [line.split(":")[0] for line in lines[begin : begin + 7]] == opening
    cells = [line.split() for line in lines[begin:]]
    assert ["epoch", "AP", "AP50"] in [row[:3] for row in cells]
    assert [row[0] for row in cells if row[:1] in (["1"], ["2"])][:2] == ["1", "2"]
    assert "online" in [line.strip() for line in lines]
    assert "teacher" in [line.strip() for line in lines]
    best = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert lines[-2].startswith(f"best: {best['weights']} weights of epoch {best['epoch']}, AP ")
    assert answer.json["AP"] == best["AP"]
    assert answer.json["run"] == str(tmp_path / "run")
    assert answer.json["epoch"] == 2
    assert "stability/consistency" in answer.json


@pytest.mark.slow
def test_a_runs_configuration_repeats_it(trained: Path, od_detr: Command, tmp_path: Path) -> None:
    answer = od_detr("train", "--config", trained / "config.yaml", "--output", tmp_path / "again")
    assert answer.status == 0
    rows = [
        [
            row | {"seconds": ""}
            for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())
        ]
        for run in (trained, tmp_path / "again")
    ]
    assert len(rows[0]) == 2
    assert rows[0] == rows[1]


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    scenes: Path, tiny: list[str], od_detr: Command, tmp_path: Path
) -> None:
    answer = od_detr(
        "train", "--data", scenes, "--output", tmp_path / "run", *tiny, "--dry-run", "--json"
    )
    assert answer.status == 0
    assert answer.error == ""
    assert list(tmp_path.iterdir()) == []
    assert answer.json["images"] == 12
    assert answer.json["classes"] == list(CLASSES)
    assert 0 < answer.json["trainable_parameters"] <= answer.json["parameters"]
    assert answer.json["flops_per_image"] > 0
    assert answer.json["batch_bytes"] > 4 * answer.json["parameters"]


@pytest.mark.parametrize("weights", ["best", "online", "teacher"])
@pytest.mark.slow
def test_evaluate_gives_the_figures_that_training_gave(
    weights: str, trained: Path, scenes: Path, od_detr: Command
) -> None:
    answer = od_detr("evaluate", trained, "--data", scenes, "--weights", weights, "--json")
    assert (answer.status, answer.error) == (0, "")
    last = dict(
        zip(
            *(line.split(",") for line in (trained / "metrics.csv").read_text().splitlines()[::2]),
            strict=True,
        )
    )
    best = json.loads((trained / "best" / "config.json").read_text())["AP"]
    expected = {"best": best, "online": last["val/AP"], "teacher": last["val/teacher/AP"]}[weights]
    assert answer.json["AP"] == pytest.approx(float(expected), abs=1e-9)
    assert {"AP50", "AP75", "APs", "APm", "APl", "AR100", "per_class"} <= answer.json.keys()
    assert list(answer.json["per_class"]) == list(CLASSES)


def test_evaluate_takes_any_split(trained: Path, scenes: Path, od_detr: Command) -> None:
    assert (
        od_detr("evaluate", trained / "best", "--data", scenes, "--split", "train", "--json").status
        == 0
    )


@pytest.mark.slow
def test_predict_draws_files_folders_and_globs_and_writes_coco_results(
    trained: Path, scenes: Path, od_detr: Command, tmp_path: Path
) -> None:
    folder = scenes / "images" / "val"
    files = sorted(folder.iterdir())
    listed = json.loads((scenes / "val.json").read_text())["images"]
    ids = {Path(image["file_name"]).name: image["id"] for image in listed}
    sources = {
        "file": [files[0]],
        "folder": [folder],
        "glob": [f"{folder}/*.png"],
        "mixed": [files[0], folder],
    }
    for name, arguments in sources.items():
        output = tmp_path / name
        answer = od_detr(
            "predict", trained, *arguments, "--output", output, "--threshold", "0", "--json"
        )
        assert (answer.status, answer.error) == (0, "")
        expected = files[:1] if name == "file" else files
        assert {path.name for path in output.iterdir()} == {
            f"{file.stem}.jpg" for file in expected
        } | {"detections.json"}
        results = json.loads((output / "detections.json").read_text())
        assert answer.json["images"] == len(expected)
        assert answer.json["detections"] == len(results) > 0
        assert {row["image_id"] for row in results} == {ids[file.name] for file in expected}
        for row in results:
            assert row["category_id"] in range(1, 6)
            assert row["category"] in CLASSES
            assert 0 <= row["score"] <= 1
            assert len(row["bbox"]) == 4
            assert row["bbox"][2] >= 0
            assert row["bbox"][3] >= 0
        with Image.open(output / f"{expected[0].stem}.jpg") as picture:
            assert min(picture.size) >= 64


def test_predict_compiles_on_a_gpu_only(
    trained: Path, scenes: Path, od_detr: Command, tmp_path: Path
) -> None:
    answer = od_detr(
        "predict", trained, scenes, "--output", tmp_path / "out", "--device", "cpu", "--compile"
    )
    assert answer.status == 2
    assert "--compile: on a cpu steps gain 5 %" in answer.error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_predict_says_nothing_but_its_result(trained: Path, scenes: Path, tmp_path: Path) -> None:
    image = sorted((scenes / "images" / "val").iterdir())[0]
    command = [
        sys.executable,
        "-m",
        "od_detr",
        "predict",
        trained,
        image,
        "--output",
        tmp_path / "out",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(
        rf"\d+ detections? in 1 image .*, drawn in {tmp_path / 'out'}\n", result.stdout
    )


def test_python_does_what_the_command_does(trained: Path, scenes: Path, od_detr: Command) -> None:
    detector = Detector.from_pretrained(trained / "best")
    assert list(detector.classes) == list(CLASSES)
    image = sorted((scenes / "images" / "val").iterdir())[0]
    found = detector.predict(image, threshold=0.0)
    assert len(found) > 0
    assert (found.xyxy[:, 2:] >= found.xyxy[:, :2]).all()
    assert found.xyxy.max() <= 80
    assert (found.confidence[:-1] >= found.confidence[1:]).all()
    assert set(found.data["class_name"]) <= set(CLASSES)
    assert len(detector.predict(image, threshold=1.0)) == 0
    commanded = od_detr("evaluate", trained, "--json").json  # on the data of the run
    assert detector.evaluate(scenes)["AP"] == commanded["AP"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deformable-detr-plus", "dino-4scale"])
def test_fit_fine_tunes_and_keeps_the_weights_of_classes_it_knows(
    model: str,
    scenes: Path,
    tiny: list[str],
    od_detr: Command,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    start = tmp_path / "start"
    tiny = [*tiny, "--model", model] + ["--num-levels", "4"] * model.startswith("dino")
    assert od_detr("train", "--data", scenes, "--output", start, *tiny, "--epochs", 1).status == 0
    detector = Detector.from_pretrained(start)
    settings = {"epochs": 1, "batch_size": 4, "device": "cpu", "workers": 0}
    same = detector.fit(scenes, output=str(tmp_path / "same"), **settings)
    assert "new are" not in capfd.readouterr().out
    assert same.predictor.detector.settings == detector.predictor.detector.settings

    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    for split in ("train", "val"):
        content = json.loads((data / f"{split}.json").read_text())
        content["categories"].append({"id": 9, "name": "ghost"})
        (data / f"{split}.json").write_text(json.dumps(content))
    other = detector.fit(data, output=str(tmp_path / "other"), **settings)
    told = capfd.readouterr().out
    assert f"{start}: 5 of 6 classes keep their weights; new are ghost" in told
    assert list(other.classes) == [*CLASSES, "ghost"]
    before, after = (one.predictor.detector.state_dict() for one in (detector, other))
    assert after["decoder.heads.classes.0.weight"].shape[0] == 6
    kept = "encoder.layers.0.linear1.weight"
    assert (after[kept] - before[kept]).abs().max() < 0.01  # three small steps from where it was
    assert od_detr("evaluate", tmp_path / "other", "--data", data, "--json").status == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"lr": 1e-4}, r"lr: .*opt_lr"),
        ({"epoch": 1}, r"epoch: .*epochs"),
        ({"epochs": "many"}, r"epochs must be a whole number"),
        ({"opt": {"lrr": 1}}, r"opt_lrr: .*opt_lr\?$"),
        ({"opt": 3}, r"opt is a group"),
        ({"opt_drop": 0}, r"opt_drop must be at least 1"),
    ],
)
def test_fit_refuses_what_the_command_refuses(
    options: dict[str, Any], pattern: str, trained: Path, scenes: Path, tmp_path: Path
) -> None:
    detector = Detector.from_pretrained(trained)
    with pytest.raises(InputError, match=pattern) as refused:
        detector.fit(scenes, output=tmp_path / "run", **options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rate", [{"opt": {"lr": "1e-3"}}, {"opt_lr": 1e-3}, {"opt.lr": 1e-3}])
def test_fit_takes_what_the_command_takes(
    rate: dict[str, Any], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainOptions] = []

    def stop(options: TrainOptions) -> None:
        seen.append(options)
        raise Interrupted("seen")

    monkeypatch.setattr("od_detr.training.fit.fit", stop)
    with pytest.raises(Interrupted):
        Detector.from_pretrained(trained).fit("data", epochs="1", batch_size=4, **rate)
    expected = OptimizerOptions(lr=1e-3)
    assert (seen[0].epochs, seen[0].batch_size, seen[0].opt) == (1, 4, expected)
    assert (seen[0].data, seen[0].init, seen[0].image_size) == ("data", str(trained), None)


@pytest.mark.slow
def test_fine_tuning_refuses_another_architecture_and_other_sizes(
    trained: Path, scenes: Path, tiny: list[str], od_detr: Command, tmp_path: Path
) -> None:
    for flags, mend in (
        (["--model", "dino-4scale"], "give --model deformable-detr-plus"),
        (["--queries", "30"], "--queries: .* has its own sizes; leave it out with --init"),
        (
            ["--backbone", "resnet34"],
            "--backbone resnet34: .* has a resnet18; leave it out with --init",
        ),
    ):
        answer = od_detr(
            "train",
            "--data",
            scenes,
            "--output",
            tmp_path / "run",
            *tiny,
            "--init",
            trained,
            *flags,
        )
        assert answer.status == 2
        assert re.search(mend, answer.error)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_evaluate_writes_results_and_a_picture(
    od_detr, trained: Path, scenes: Path, tmp_path: Path
) -> None:
    results, figure = tmp_path / "results.json", tmp_path / "figure.png"
    command = ("evaluate", trained, "--data", scenes, "--threshold", 0.05, "--json")
    answer = od_detr(*command, "--output", results, "--figure", figure)
    assert answer.status == 0
    assert answer.json["threshold"] == 0.05
    assert set(answer.json["errors"]) >= {"missed"}
    assert json.loads(results.read_text())[0].keys() == {"image_id", "category_id", "bbox", "score"}
    assert figure.stat().st_size > 10_000
    assert {"AP50", "precision", "recall", "F1"} <= set(answer.out.split())
    refused = od_detr(*command, "--figure", tmp_path / "figure.gif")
    assert refused.status == 2
    assert "--figure" in refused.error


@pytest.mark.slow
def test_a_validation_set_without_objects_is_reported_and_the_last_epoch_is_best(
    od_detr, scenes: Path, tiny: list[str], tmp_path: Path
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(scenes, data)
    labels = next(data.rglob("*val*.json"))
    labels.write_text(json.dumps(json.loads(labels.read_text()) | {"annotations": []}))
    answer = od_detr("train", "--data", data, "--output", run, "--epochs", 3, *tiny)
    assert answer.status == 0
    assert "AP cannot be measured" in answer.out
    assert "-100" not in answer.out
    best = json.loads((run / "best" / "config.json").read_text())
    assert best["epoch"] == 3
    assert "threshold" not in best


@pytest.mark.slow
def test_the_run_keeps_the_threshold_of_the_highest_f1_and_predict_uses_it(
    od_detr, trained: Path, scenes: Path, tmp_path: Path
) -> None:
    best = json.loads((trained / "best" / "config.json").read_text())
    answer = od_detr("evaluate", trained, "--data", scenes, "--json")
    expected = answer.json["best_threshold"]
    assert best.get("threshold") == expected
    image = next(path for path in scenes.rglob("*.*") if path.suffix in (".png", ".jpg", ".jpeg"))
    predicted = od_detr("predict", trained, image, "--output", tmp_path / "auto", "--json")
    assert predicted.json["threshold"] == (0.3 if expected is None else expected)
    given = od_detr("predict", trained, image, "--output", tmp_path / "x", "--threshold", "auto")
    assert given.status == 0
