"""Every example of the documents and of the Python interface does what it says."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import supervision
from tests.docs.conftest import IMAGES, SHARED, real_data

import od_detr
from od_detr.cli import main
from od_detr.cli.commands import COMMANDS
from od_detr.cli.parsing.parser import parse
from od_detr.options import TrainOptions

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
INSTALLING = ("pip ", "make ", ".venv/")


def blocks(page: Path) -> Iterator[list[str]]:
    """The indented blocks of a page, as lists of lines without indentation."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for found in re.findall(r"(?:^|\n\n)((?: {4}.*\n|\n(?= {4}))+)", text):
        yield textwrap.dedent(found).strip("\n").split("\n")


def commands(lines: list[str]) -> Iterator[list[str]]:
    """The words of each `od-detr` command, whose comment and continuation lines are joined."""
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    for line in joined.split("\n"):
        if line.removeprefix("$ ").startswith("od-detr "):
            yield shlex.split(line.removeprefix("$ "), comments=True)[1:]


def is_python(lines: list[str]) -> bool:
    return re.match(r"from |import |detector\b", lines[0]) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_has_options_that_exist(page: Path) -> None:
    in_tables = re.findall(r"^\|.*?`(od-detr [^`]+)`", page.read_text(), flags=re.MULTILINE)
    for lines in [*blocks(page), in_tables]:
        for name, *words in commands(lines):
            if name.startswith("-") or {"--help", "--help-all", "..."} & set(words):
                continue
            command = COMMANDS[name]
            if not words:  # a command's name alone
                continue
            words = [each for each in words if not each.startswith("[")]  # what may be left out
            words = [re.sub(r"\{(\w+),.*\}", r"\1", each) for each in words]  # one of several
            if "--config" not in words and "--replay" not in words and "--resume" not in words:
                parse(name, command.options, words, command.reads_config)


def run_page(page: Path) -> dict[str, Any]:
    """Runs every command and every Python block of a page, in order; returns Python's names."""
    names: dict[str, Any] = {}
    for lines in blocks(page):
        if is_python(lines):
            exec("\n".join(lines), names)
            continue
        for line in lines:
            assert line.startswith(("od-detr ", *INSTALLING)), f"{page.name}: {line}"
        for words in commands(lines):
            assert main(words) == 0, f"{page.name}: od-detr {shlex.join(words)}"
    return names


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_every_command_and_every_line_of_python_runs(
    page: str, at_home: Callable[..., Any], home: Path
) -> None:
    for folder in ("runs", "predictions", "mine-for-transformers"):
        shutil.rmtree(home / folder, ignore_errors=True)
    names = run_page(ROOT / page)
    assert isinstance(names["detections"], supervision.Detections)
    rows = json.loads((home / "predictions" / "detections.json").read_text())
    assert isinstance(rows, list)
    drawn = {path.name for path in (home / "predictions").iterdir()}
    assert {"street.jpg", "beach.jpg", "clip.mp4", "detections.json"} <= drawn


@pytest.mark.slow
def test_a_backbone_from_a_file_is_trained_evaluated_and_used_on_photographs(
    at_home: Callable[..., Any], tmp_path: Path
) -> None:
    import benchmarks.real_data  # noqa: F401 - gives timm the backbone's name

    data, run = real_data("coco_cc", tmp_path / "photographs"), tmp_path / "run"
    file = SHARED / "weights" / "mobilenetv1_075_imagenet.safetensors"
    weights = str(file) if file.is_file() else "none"
    backbone = ["--backbone", "mobilenetv1_075", "--backbone-weights", weights]
    assert main(["train", "--data", str(data), *backbone, "--output", str(run)]) == 0
    assert main(["evaluate", str(run), "--data", str(data)]) == 0
    output = tmp_path / "predictions"
    assert main(["predict", str(run), str(data), "--output", str(output), "--yolo"]) == 0
    assert len(list((output / "labels").iterdir())) == sum(IMAGES.values())


# ---- docstrings of the Python interface ----------------------------------------------------------


def interface() -> Iterator[tuple[str, Any]]:
    """Whatever `from od_detr import ...` offers, and what it has in turn."""
    for name in od_detr.__all__:
        thing = getattr(od_detr, name)
        yield name, thing
        if inspect.isclass(thing):
            public = [each for each in vars(thing) if not each.startswith("_")]
            yield from ((f"{name}.{each}", getattr(thing, each)) for each in public)


def examples(thing: Any) -> str:
    """The code under "Example:" in a docstring."""
    found = re.search(r"\nExample:\n((?: {4}.*\n|\n)+)", f"{inspect.getdoc(thing)}\n")
    return textwrap.dedent(found.group(1)) if found else ""


def test_help_says_what_every_part_of_the_interface_takes_and_returns() -> None:
    for name, thing in interface():
        text = inspect.getdoc(thing) or ""
        assert text, name
        if not callable(thing) or inspect.isclass(thing):
            continue
        taken = [each for each in inspect.signature(thing).parameters if each != "self"]
        for each in taken:
            assert re.search(rf"^ +\*{{0,2}}{each}: ", text, re.MULTILINE), f"{name}: {each}"
        assert "Raises:" in text, name


@pytest.mark.slow
def test_every_example_in_a_docstring_runs(
    saved: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls are real, but a training only leaves a detector in its folder."""

    def trained(options: TrainOptions) -> SimpleNamespace:
        shutil.copytree(saved, Path(options.output) / "best")
        return SimpleNamespace(directory=Path(options.output))

    monkeypatch.chdir(home)
    monkeypatch.setattr("od_detr.training.fit.fit", trained)
    monkeypatch.setattr(
        "od_detr.integrations.weights.publishing.publish.push", lambda *_, **__: "address"
    )
    monkeypatch.setattr("od_detr.inference.export.export", lambda *_: None)
    codes = [code for _, thing in interface() if (code := examples(thing))]
    assert len(codes) >= 4
    for code in codes:
        shutil.rmtree(home / "runs", ignore_errors=True)
        if "train(" not in code and "create(" not in code:
            shutil.copytree(saved, home / "runs" / "x" / "best")
        exec(code, {"od_detr": od_detr, "Detector": od_detr.Detector})
