"""The conventions that keep this a house: sizes, names, layers, and what is never written."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest

from od_detr.options import TrainOptions

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "od_detr").rglob("*.py"))
PAPER = ROOT / "docs" / "paper.md"


@cache
def tree(source: Path) -> ast.Module:
    return ast.parse(source.read_text(), str(source))


def nodes(source: Path, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree(source)) if isinstance(node, kinds))


def lines(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


def code_lines(source: Path) -> int:
    written = source.read_text().splitlines()
    for node in nodes(source, ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef):
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            written[docstring.lineno - 1 : docstring.end_lineno] = [""] * lines(docstring)
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in written)


def name(source: Path, line: int | None = None) -> str:
    return str(source.relative_to(ROOT)) + (f":{line}" if line else "")


# ---- sizes and names -----------------------------------------------------------------------------


def test_a_file_fits_in_400_lines() -> None:
    """How long a function may be is ruff's to say, by statements and branches."""
    assert [name(source) for source in SOURCES if len(source.read_text().splitlines()) > 400] == []


def test_a_room_stays_below_1200_lines_of_code() -> None:
    """Of code: what is blank, a comment or a docstring helps the reader."""
    rooms: dict[Path, int] = {}
    for source in SOURCES:
        rooms[source.parent] = rooms.get(source.parent, 0) + code_lines(source)
    assert {name(room): size for room, size in rooms.items() if size > 1200} == {}


def test_no_module_is_named_after_nothing() -> None:
    nameless = {"utils", "util", "misc", "common", "core", "base", "helpers", "helper"}
    names = {part for source in SOURCES for part in source.relative_to(ROOT).with_suffix("").parts}
    assert "criteria" in names
    assert not names & nameless


def test_whatever_is_public_says_what_it_is() -> None:
    for source in SOURCES:
        module = tree(source)
        public = [
            n
            for n in module.body
            if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_"
        ]
        assert [node.name for node in public if not ast.get_docstring(node)] == [], name(source)
        assert not public or ast.get_docstring(module), name(source)


# ---- what is never written -----------------------------------------------------------------------


def test_no_error_is_swallowed() -> None:
    for source in SOURCES:
        for handler in nodes(source, ast.ExceptHandler):
            assert handler.type is not None, f"{name(source, handler.lineno)}: bare except"
            silent = all(isinstance(statement, ast.Pass) for statement in handler.body)
            assert not silent, f"{name(source, handler.lineno)}: except: pass"


def test_nothing_is_left_for_later() -> None:
    assert [
        name(source)
        for source in SOURCES
        if re.search(r"\b(?:TODO|FIXME|XXX|HACK)\b", source.read_text())
    ] == []


def test_no_file_of_a_stranger_is_ever_executed() -> None:
    """No unpickling, no eval, and `torch.load` only with `weights_only=True`."""
    forbidden = {"cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for source in SOURCES:
        imported = {
            alias.name.split(".")[0] for node in nodes(source, ast.Import) for alias in node.names
        }
        imported |= {str(node.module).split(".")[0] for node in nodes(source, ast.ImportFrom)}
        assert not imported & forbidden, name(source)
        used = {ast.unparse(node) for node in nodes(source, ast.Attribute)}
        assert {known for known in used if known.startswith("pickle.")} <= {
            "pickle.UnpicklingError"
        }, name(source)
        assert not any(node.module == "pickle" for node in nodes(source, ast.ImportFrom)), name(
            source
        )
        for call in nodes(source, ast.Call):
            called = ast.unparse(call.func)
            assert called not in (
                "eval",
                "exec",
                "yaml.load",
                "yaml.unsafe_load",
                "yaml.full_load",
            ), name(source)
            if called == "torch.load":
                given = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert given.get("weights_only") == "True", name(source, call.lineno)


def tracked() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only a checkout knows which files are tracked")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_tracked_files_speak_of_the_code_and_not_of_its_making() -> None:
    """No path of one machine, and no word about who wrote a line with what.

    The word `session` as programs use it is fine.
    """
    words = (
        r"\b(?:sub)?agents?\b|\bco-?founders?\b|\bfounders?\b|"
        r"\b(?:this|last|next|previous|my|our) session\b"
    )
    paths = r"(?<![\w.])/(?:work|tmp|root|home)/\w"
    forbidden = re.compile(f"{words}|{paths}", re.IGNORECASE)
    found = []
    for file in tracked():
        if file == Path(__file__):
            continue
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{file.relative_to(ROOT)}: {match.group()}" for match in forbidden.finditer(text)
        ]
    assert found == []


# ---- layers --------------------------------------------------------------------------------------


def test_imports_run_downwards() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which(
        "lint-imports"
    )
    if command is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_command_line_answers_without_torch() -> None:
    heavy = ("torch", "torchvision", "lightning", "timm", "numpy", "scipy", "matplotlib")
    code = f"import sys, od_detr.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- docs/paper.md -------------------------------------------------------------------------------


def paper() -> str:
    if not PAPER.is_file():
        pytest.skip("docs/paper.md is not there")
    return PAPER.read_text()


def resolve(dotted: str) -> object:
    """The module, class, function or method of that name."""
    parts = dotted.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        for name in parts[size:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(dotted)


def test_every_function_the_paper_page_names_exists() -> None:
    names = set(re.findall(r"`(od_detr(?:\.\w+)+)`", paper()))
    assert len(names) > 10
    for name in sorted(names):
        resolve(name)


def test_every_switch_is_on_the_paper_page_and_every_switch_there_exists() -> None:
    groups = {
        field.name: field.default_factory()
        for field in fields(TrainOptions)
        if callable(field.default_factory)
    }
    groups = {name: default for name, default in groups.items() if is_dataclass(default)}
    switches = {
        f"{name}.{field.name.rstrip('_')}"
        for name, default in groups.items()
        for field in fields(default)
    }
    quoted = re.findall(r"`(?:--)?([a-z_-]+\.[a-z][\w-]*)(?: [^`]*)?`", paper())
    named = {name.replace("-", "_") for name in quoted if name.split(".")[0] in groups}
    assert named <= switches, named - switches
    method = {
        name
        for name in switches
        if name.split(".")[0]
        in ("md", "pd", "query_prior", "ag", "encoder", "denoising", "qfl", "dino")
    }
    assert method <= named, method - named
