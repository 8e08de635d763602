"""What each verb does, from its arguments to its last line."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from od_detr import Detector
from od_detr.arguments import Parser
from od_detr.cli import VERBS, TrainCommand
from od_detr.data.scenes import CLASSES

Command = Callable[..., Any]


def parsed(*arguments: str) -> TrainCommand:
    return Parser("train", TrainCommand, config=True).parse(["--data", "x", *arguments])


def test_help_and_overview_need_neither_torch_nor_lightning() -> None:
    script = (
        "import sys\nfrom od_detr.cli import main\nassert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'lightning', 'timm', 'supervision'} & set(sys.modules)\nassert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert all(re.search(rf"^  {verb} +\S", result.stdout, re.MULTILINE) for verb in VERBS)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_option_of_a_verb_is_explained_as_it_is_typed(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, options, positional = VERBS[verb]
    with pytest.raises(SystemExit) as left:
        Parser(verb, options, positional, config=verb == "train").parse(["--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: od-detr {verb}")
    assert not re.search(r"--\w+_\w", told)
    for name in options.__dataclass_fields__:
        shown = name if name in positional else "--" + name.replace("_", "-")
        assert shown in told
    assert "--json" in told


def test_hyphens_and_underscores_name_the_same_option() -> None:
    assert parsed("--batch-size", "7", "--pd.iou-from=main") == parsed(
        "--batch_size=7", "--pd.iou_from", "main"
    )
    assert parsed("--qfl.class-weight", "1.5").qfl.class_weight == 1.5


def test_a_flag_without_a_value_means_true() -> None:
    assert parsed("--resume").resume and parsed("--resume", "--json").json
    assert not parsed("--resume", "false").resume and not parsed("--resume=false").resume
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
    assert lines[0] == (
        f"{data / 'train.json'}: 1 crowd boxes and 1 boxes without area dropped, 1 boxes clipped to their image"
    )
    assert [line[:9] for line in lines[1:3]] == ["Epoch 1/2", "Epoch 2/2"]
    assert lines[3].strip() == "online" and "teacher" in [line.strip() for line in lines]
    best = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert lines[-2].startswith(f"best: {best['weights']} weights of epoch {best['epoch']}, AP ")
    assert answer.json["AP"] == best["AP"] and answer.json["run"] == str(tmp_path / "run")
    assert answer.json["epoch"] == 2 and "stability/consistency" in answer.json


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
    assert len(rows[0]) == 2 and rows[0] == rows[1]


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    scenes: Path, tiny: list[str], od_detr: Command, tmp_path: Path
) -> None:
    answer = od_detr(
        "train", "--data", scenes, "--output", tmp_path / "run", *tiny, "--dry-run", "--json"
    )
    assert answer.status == 0 and answer.error == "" and list(tmp_path.iterdir()) == []
    assert answer.json["images"] == 12 and answer.json["classes"] == list(CLASSES)
    assert 0 < answer.json["trainable_parameters"] <= answer.json["parameters"]
    assert (
        answer.json["flops_per_image"] > 0
        and answer.json["batch_bytes"] > 4 * answer.json["parameters"]
    )


@pytest.mark.parametrize("weights", ["best", "online", "teacher"])
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


def test_predict_draws_files_folders_and_globs_and_writes_coco_results(
    trained: Path, scenes: Path, od_detr: Command, tmp_path: Path
) -> None:
    folder = scenes / "images" / "val"
    files = sorted(folder.iterdir())
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
        assert (
            answer.json["images"] == len(expected) and answer.json["detections"] == len(results) > 0
        )
        assert {row["image_id"] for row in results} == {str(file) for file in expected}
        for row in results:
            assert (
                row["category_id"] in range(1, 6)
                and row["category"] in CLASSES
                and 0 <= row["score"] <= 1
            )
            assert len(row["bbox"]) == 4 and row["bbox"][2] >= 0 and row["bbox"][3] >= 0
        with Image.open(output / f"{expected[0].stem}.jpg") as picture:
            assert min(picture.size) >= 64


def test_predict_compiles_on_a_gpu_only(
    trained: Path, scenes: Path, od_detr: Command, tmp_path: Path
) -> None:
    answer = od_detr(
        "predict", trained, scenes, "--output", tmp_path / "out", "--device", "cpu", "--compile"
    )
    assert answer.status == 2 and "--compile: on a cpu steps gain 5 %" in answer.error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_predict_says_nothing_but_its_result(trained: Path, scenes: Path, tmp_path: Path) -> None:
    image = sorted((scenes / "images" / "val").iterdir())[0]
    command = [
        sys.executable,
        "-m",
        "od_detr.cli",
        "predict",
        trained,
        image,
        "--output",
        tmp_path / "out",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(
        rf"\d+ detections in 1 images, drawn in {tmp_path / 'out'}\n", result.stdout
    )


def test_python_does_what_the_command_does(trained: Path, scenes: Path, od_detr: Command) -> None:
    detector = Detector.from_pretrained(trained / "best")
    assert list(detector.classes) == list(CLASSES)
    image = sorted((scenes / "images" / "val").iterdir())[0]
    found = detector.predict(image, threshold=0.0)
    assert (
        len(found) > 0 and (found.xyxy[:, 2:] >= found.xyxy[:, :2]).all() and found.xyxy.max() <= 80
    )
    assert (found.confidence[:-1] >= found.confidence[1:]).all()
    assert set(found.data["class_name"]) <= set(CLASSES)
    assert len(detector.predict(image, threshold=1.0)) == 0
    commanded = od_detr("evaluate", trained, "--data", scenes, "--json").json
    assert detector.evaluate(scenes)["AP"] == commanded["AP"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deformable-detr-plus", "dino-4scale"])
def test_fit_fine_tunes_and_gives_other_classes_new_heads(
    model: str,
    scenes: Path,
    tiny: list[str],
    od_detr: Command,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    start = tmp_path / "start"
    assert (
        od_detr(
            "train", "--data", scenes, "--output", start, *tiny, "--model", model, "--epochs", 1
        ).status
        == 0
    )
    detector = Detector.from_pretrained(start)
    settings = {"epochs": 1, "batch_size": 4, "device": "cpu", "workers": 0}
    same = detector.fit(scenes, output=str(tmp_path / "same"), **settings)
    assert "other classes" not in capfd.readouterr().out
    assert same.predictor.detector.settings == detector.predictor.detector.settings

    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    for split in ("train", "val"):
        content = json.loads((data / f"{split}.json").read_text())
        content["categories"].append({"id": 9, "name": "ghost"})
        (data / f"{split}.json").write_text(json.dumps(content))
    other = detector.fit(data, output=str(tmp_path / "other"), **settings)
    told = capfd.readouterr().out
    assert f"{start}: was trained for 5 other classes; new are " in told
    assert "decoder.heads.classes.0.weight" in told and ("queries.heads" in told) == (
        model == "dino-4scale"
    )
    assert list(other.classes) == [*CLASSES, "ghost"]
    before, after = (one.predictor.detector.state_dict() for one in (detector, other))
    assert after["decoder.heads.classes.0.weight"].shape[0] == 6
    kept = "encoder.layers.0.linear1.weight" if "encoder.layers.0.linear1.weight" in before else next(
        name for name in before if name.startswith("encoder") and before[name].dim() == 2)  # fmt: skip
    assert (after[kept] - before[kept]).abs().max() < 0.01  # three small steps from where it was
    assert od_detr("evaluate", tmp_path / "other", "--data", data, "--json").status == 0


def test_fine_tuning_refuses_another_host_and_other_sizes(
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
        assert answer.status == 2 and re.search(mend, answer.error)
        assert not (tmp_path / "run").exists()
