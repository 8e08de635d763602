"""A checkpoint is whole or recognised as damaged, and the one before it is kept."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.saving import blank_contents

from od_detr import checkpoints, files
from od_detr.checkpoints import WORTH_A_THREAD, load_checkpoint, restore_last, save_checkpoint
from od_detr.errors import InputError, Interrupted
from od_detr.run_files import RunFiles


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    return RunFiles(tmp_path)


def save(run: RunFiles, step: int, **changes: Any) -> None:
    weights = torch.full((3000,), float(step))
    contents = blank_contents() | {
        "global_step": step,
        "state_dict": {"w": weights},
    }
    save_checkpoint(contents | changes, run)


def names(run: RunFiles) -> list[str]:
    return sorted(file.name for file in run.directory.iterdir())


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def refusal(run: RunFiles) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(run)
    message = str(caught.value)
    assert "last.ckpt" in message
    assert "\n" not in message
    assert "weights_only" not in message
    return message


def test_the_last_two_saves_are_kept(run: RunFiles) -> None:
    for step in (1, 2, 3):
        save(run, step)
    assert names(run) == ["last.ckpt", "previous.ckpt"]
    steps = [
        torch.load(file, weights_only=True)["global_step"] for file in (run.last, run.previous)
    ]
    assert steps == [3, 2]
    loaded = load_checkpoint(run)
    assert loaded.file == run.last
    assert loaded.notice == ""
    assert bool((loaded.contents["state_dict"]["w"] == 3).all())


@pytest.mark.parametrize("values", [3, WORTH_A_THREAD])
def test_a_checkpoint_is_a_zip_archive_whose_comment_is_its_digest(
    values: int, run: RunFiles
) -> None:
    """Whether a tensor is hashed in a thread or not."""
    save(run, 1, state_dict={f"w{n}": torch.rand(values) for n in range(5)})
    with zipfile.ZipFile(run.last) as archive:
        comment = archive.comment
    before = run.last.read_bytes()[: -len(comment) - 2] + b"\0\0"
    assert comment == b"sha256:" + hashlib.sha256(before).hexdigest().encode()
    load_checkpoint(run)


def test_every_flipped_bit_is_found(run: RunFiles) -> None:
    """In tensors, in the archive's directory, in the digest and in the length of the comment."""
    save(run, 1)
    whole = run.last.read_bytes()
    for place in (*range(0, len(whole), len(whole) // 40), *range(len(whole) - 80, len(whole))):
        flip(run.last, place)
        assert "SHA-256" in refusal(run)
        run.last.write_bytes(whole)
    assert load_checkpoint(run).contents["global_step"] == 1


def test_a_damaged_newest_gives_way_to_the_one_before_which_the_next_save_keeps(
    run: RunFiles,
) -> None:
    save(run, 1)
    save(run, 2)
    flip(run.last, 1000)
    loaded = load_checkpoint(run)
    assert loaded.contents["global_step"] == 1
    assert loaded.file == run.previous
    assert "last.ckpt" in loaded.notice
    assert "\n" not in loaded.notice
    restore_last(loaded, run)
    assert load_checkpoint(run).notice == ""
    save(run, 3)
    flip(run.last, 1000)
    assert load_checkpoint(run).contents["global_step"] == 1
    assert names(run) == ["last.ckpt", "previous.ckpt"]


def test_a_missing_newest_gives_way_to_the_one_before(run: RunFiles) -> None:
    save(run, 1)
    save(run, 2)
    run.last.unlink()
    assert load_checkpoint(run).contents["global_step"] == 1


def test_where_both_are_damaged_one_line_names_both(run: RunFiles) -> None:
    save(run, 1)
    save(run, 2)
    for file in (run.last, run.previous):
        flip(file, 1000)
    assert "previous.ckpt" in refusal(run)


def test_without_hard_links_the_last_two_saves_are_kept_too(
    run: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for step in (1, 2, 3):
        save(run, step)
    run.last.unlink()
    assert load_checkpoint(run).contents["global_step"] == 2


FAULTS: dict[str, tuple[type, str]] = {
    "write": (checkpoints._Hashing, "write"),
    "flush": (os, "fsync"),
    "rename": (os, "replace"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_cannot_be_written_leaves_both_generations_and_says_why(
    fault: str, run: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    save(run, 1)
    save(run, 2)
    monkeypatch.setattr(*FAULTS[fault], full)
    with pytest.raises(InputError, match=r"last\.ckpt: .*No space left"):
        save(run, 3)
    monkeypatch.undo()
    assert load_checkpoint(run).contents["global_step"] == 2
    run.last.unlink()
    assert load_checkpoint(run).contents["global_step"] == 1
    assert names(run) == ["previous.ckpt"]


def test_a_vanished_folder_is_reported_in_one_line(run: RunFiles, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone/last\.ckpt: .*No such file"):
        save(RunFiles(tmp_path / "gone"), 1)


class Trap:
    """Pickled code."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("content", ["missing", "empty", "cut", "foreign", "code", "other"])
def test_a_checkpoint_that_is_none_is_refused_in_one_line(
    content: str, run: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.directory)
    if content == "empty":
        run.last.touch()
    elif content == "cut":
        save(run, 0)
        run.last.write_bytes(run.last.read_bytes()[:2000])
    elif content == "foreign":
        torch.save({"state_dict": Trap()}, run.last)
    elif content == "code":
        save(run, 0, state_dict=Trap())
    elif content == "other":
        checkpoints._write({"weights": torch.zeros(3)}, run.last)
    refusal(run)
    assert not (run.directory / "trapped").exists()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_checkpoint_has_the_users_permissions(run: RunFiles) -> None:
    usual = run.directory / "usual"
    usual.touch()
    save(run, 1)
    save(run, 2)
    assert {file.stat().st_mode for file in run.directory.iterdir()} == {usual.stat().st_mode}


def test_a_new_folder_and_every_rename_are_flushed_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(files, "_flush_directory", flushed.append)
    run = RunFiles(tmp_path / "runs" / "one")
    files.make_directory(run.directory)
    assert set(flushed) == {tmp_path, tmp_path / "runs"}
    save(run, 1)
    assert flushed[-1] == run.directory


@pytest.mark.parametrize("stop", [Interrupted("stopped"), KeyboardInterrupt()])
def test_a_stop_during_a_save_is_no_full_disk(
    run: RunFiles, stop: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch replaces what its writer raises by an error of its own."""
    save(run, 1)

    def write(*_: object) -> None:
        raise stop

    monkeypatch.setattr(checkpoints._Hashing, "write", write)
    with pytest.raises(type(stop)) as raised:
        save(run, 2)
    assert raised.value is stop
    assert names(run) == ["last.ckpt"]
    assert load_checkpoint(run).contents["global_step"] == 1
