"""Compiling on first use: cached, safe to race, silent where it cannot be."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from od_detr.ops import compiler

SOURCE = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a small source in place of the package's."""
    (tmp_path / "answer.cpp").write_text(SOURCE)
    monkeypatch.setattr(compiler, "files", lambda package: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "od_detr"


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, compiler.COMPILERS)), reason="no C++ compiler"
)


@needs_compiler
def test_racing_builds_leave_one_library_and_nothing_else(cache):
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(compiler.load_library, ["answer.cpp"] * 4))
    assert [library.answer() for library in libraries] == [42] * 4
    assert len(list(cache.iterdir())) == 1


@needs_compiler
def test_a_cached_library_is_not_built_again_and_a_changed_source_is(cache):
    compiler.load_library("answer.cpp")
    (first,) = cache.iterdir()
    built = first.stat().st_mtime_ns
    compiler.load_library("answer.cpp")
    assert [(file, file.stat().st_mtime_ns) for file in cache.iterdir()] == [(first, built)]
    (cache.parent.parent / "answer.cpp").write_text(SOURCE.replace("42", "43"))
    assert compiler.load_library("answer.cpp").answer() == 43
    assert len(list(cache.iterdir())) == 2


@needs_compiler
def test_a_source_that_does_not_compile_gives_none_and_the_compiler_s_line(cache, caplog):
    (cache.parent.parent / "answer.cpp").write_text("int answer( {")
    with caplog.at_level(logging.DEBUG, logger="od_detr"):
        assert compiler.load_library("answer.cpp") is None
    assert len(caplog.records) == 1
    assert "error" in caplog.records[0].getMessage()
    assert not list(cache.iterdir())


def test_without_a_compiler_there_is_none_and_one_debug_line(cache, caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.DEBUG, logger="od_detr"):
        assert compiler.load_library("answer.cpp") is None
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


@needs_compiler
def test_without_a_home_directory_there_is_none_and_one_debug_line(cache, caplog, monkeypatch):
    """As in a container whose user has no entry in /etc/passwd."""
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with caplog.at_level(logging.DEBUG, logger="od_detr"):
        assert compiler.load_library("answer.cpp") is None
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
