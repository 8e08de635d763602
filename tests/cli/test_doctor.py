"""`od-detr doctor`: what it prints, how it ends, and that it leaves the data alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from od_detr.data.scenes import render_scenes

Fingerprint = Callable[[Path], dict[str, str]]


def test_sound_scenes_pass(od_detr: Callable, scenes: Path, fingerprint: Fingerprint) -> None:
    before = fingerprint(scenes)
    answer = od_detr("doctor", scenes, "--model", "dino-4scale", "--json", "--workers", "1")
    assert answer.status == 0, answer.error
    assert answer.json["splits"]["train"]["images"] == 12
    assert all(problem["severity"] != "error" for problem in answer.json["problems"])
    assert fingerprint(scenes) == before


def test_what_stops_a_training_is_an_error_of_one_line(od_detr: Callable, tmp_path: Path) -> None:
    render_scenes(tmp_path / "data", 4, 2, 48)
    document = json.loads((tmp_path / "data" / "train.json").read_text())
    document["annotations"][3]["bbox"] = [1, 2, 3]
    (tmp_path / "data" / "train.json").write_text(json.dumps(document))
    answer = od_detr("doctor", tmp_path / "data", "--json")
    assert answer.status == 2
    assert "train.json" in answer.error
    assert "bbox" in answer.error
    assert answer.error.startswith("error: ")
    assert answer.error.count("\n") == 1
    codes = {problem["code"] for problem in answer.json["problems"]}
    assert "annotation-bbox" in codes


def test_a_split_that_cannot_be_read_does_not_hide_the_others(
    od_detr: Callable, tmp_path: Path
) -> None:
    render_scenes(tmp_path / "data", 4, 2, 48)
    (tmp_path / "data" / "train.json").write_text('{"images": [')
    answer = od_detr("doctor", tmp_path / "data", "--json")
    assert answer.status == 2
    assert "train.json" in answer.error
    assert list(answer.json["splits"]) == ["val"]


def test_a_folder_to_evaluate_on_passes(od_detr: Callable, tmp_path: Path) -> None:
    render_scenes(tmp_path / "data", 4, 2, 48)
    (tmp_path / "data" / "train.json").unlink()
    answer = od_detr("doctor", tmp_path / "data", "--workers", "1")
    assert answer.status == 0, answer.error
    assert "there is no training split" in answer.out
    assert "stops training" not in answer.out


def test_a_folder_without_annotations_is_refused(od_detr: Callable, tmp_path: Path) -> None:
    answer = od_detr("doctor", tmp_path)
    assert answer.status == 2
    assert answer.error.startswith(f"error: {tmp_path}")


def test_names_are_printed_as_they_are(od_detr: Callable, tmp_path: Path) -> None:
    data = tmp_path / "[raw]"
    render_scenes(data, 4, 2, 48)
    document = json.loads((data / "train.json").read_text())
    document["categories"].append({"id": 9, "name": "[/x] :dog:"})
    (data / "train.json").write_text(json.dumps(document))
    shown = od_detr("doctor", data, "--workers", "1").out
    assert "'[/x] :dog:'" in shown
    assert "[raw]:whatwasfound" in "".join(shown.split())  # wherever the title is broken


def test_queries_count_for_a_model_only(od_detr: Callable, scenes: Path) -> None:
    answer = od_detr("doctor", scenes, "--queries", "3")
    assert answer.status == 2
    assert "--model" in answer.error
    answer = od_detr("doctor", scenes, "--queries", "1", "--model", "dab-deformable-detr")
    assert answer.status == 2
    assert "queries" in answer.error


def test_what_is_fixed_passes_and_what_was_left_out_is_listed(
    od_detr: Callable, tmp_path: Path, fingerprint: Fingerprint
) -> None:
    data, output = tmp_path / "data", tmp_path / "fixed"
    render_scenes(data, 4, 2, 48)
    document = json.loads((data / "train.json").read_text())
    document["annotations"][3]["bbox"] = [1, 2, 3]
    (data / "train.json").write_text(json.dumps(document))
    before = fingerprint(data)
    answer = od_detr("doctor", data, "--fix", output, "--json")
    assert answer.status == 4
    assert [each["code"] for each in answer.json["skipped"]] == ["annotation-bbox"]
    assert fingerprint(data) == before
    assert od_detr("doctor", output).status == 0
    answer = od_detr("doctor", data, "--fix", output)
    assert answer.status == 2
    assert str(output) in answer.error


@pytest.mark.parametrize(
    ("option", "output"),
    [
        ("--fix", "full"),
        ("--fix", "file"),
        ("--fix", "file/new"),
        ("--report", "full"),
        ("--report", "file/page.html"),
        ("--report", "new/page.html"),
    ],
)
def test_an_output_that_is_taken_is_refused_before_the_examination(
    option: str, output: str, od_detr: Callable, scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    fix = ("--fix", tmp_path / "new") if option == "--report" else ()
    answer = od_detr("doctor", scenes, option, tmp_path / output, *fix)
    assert answer.status == 2
    assert f"{option} {tmp_path / output}: " in answer.error
    assert not (tmp_path / "new").exists()
    assert "train:" not in answer.out
