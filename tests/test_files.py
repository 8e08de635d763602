"""Files appear whole or not at all, and a lock keeps other processes out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from od_detr.errors import InputError
from od_detr.files import atomic_write, clear_unfinished, locked, read_json

LOCKING = """
import os, sys
from pathlib import Path
from od_detr.errors import InputError
from od_detr.files import locked
try:
    with locked(Path(sys.argv[1]), "refused"):
        if "die" in sys.argv:
            os._exit(9)
        print("held")
except InputError as error:
    print(error)
"""


def elsewhere(lock: Path, *arguments: str) -> str:
    """What another process says that wants the lock."""
    command = [sys.executable, "-c", LOCKING, str(lock), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("old")

    def write_half() -> None:
        with atomic_write(file) as partial:
            partial.write_text("ha")
            assert file.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    with atomic_write(file) as partial:
        partial.write_text("new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_new_file_has_the_users_permissions(tmp_path: Path) -> None:
    file, usual = tmp_path / "weights", tmp_path / "usual"
    usual.touch()
    with atomic_write(file) as partial:
        partial.unlink()
        partial.touch(mode=0o600)
    assert file.stat().st_mode == usual.stat().st_mode


def test_only_what_dead_processes_left_is_cleared(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, living, foreign = (
        tmp_path / f"last.ckpt.{owner}.part" for owner in (ended.pid, os.getppid(), "mine")
    )
    for file in (dead, living, foreign):
        file.touch()
    clear_unfinished(tmp_path / "last.ckpt")
    assert sorted(tmp_path.iterdir()) == sorted([living, foreign])


def test_a_lock_excludes_others_until_its_process_ends(tmp_path: Path) -> None:
    lock = tmp_path / "train.lock"
    with locked(lock, "mine"):
        assert elsewhere(lock) == "refused"
        with pytest.raises(InputError, match="again"), locked(lock, "again"):
            pass
    assert elsewhere(lock, "die") == ""
    assert elsewhere(lock) == "held"
    with locked(lock, "mine"):
        pass


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", "empty"),
        (b"[1]", "list"),
        (b'{"a": 1,\n "b": }', "line 2 column 7"),
        (b'{"a": "\xff"}', "byte 7"),
        (b"[" * 100_000, "JSON"),
    ],
)
def test_broken_json_is_one_line_with_file_and_place(
    tmp_path: Path, content: bytes, place: str
) -> None:
    file = tmp_path / "val.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_json(file, "COCO file", "export it again")
    message = str(refused.value)
    assert str(file) in message
    assert place in message
    assert "\n" not in message


def test_json_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "val.json"
    file.write_text('{"images": []}', encoding="utf-8-sig")
    assert read_json(file, "COCO file", "export it again") == {"images": []}
