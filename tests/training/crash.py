"""Kills processes that save, at random moments and at every call that changes a file.

    python -m tests.training.crash [--random 500] [--trainings 20] [--directory DIR]

Three parts, each of which goes on in the same run directory after every kill:

- `random`: a process that saves without pause is killed after a random time;
- `calls`: it is killed before and in the middle of each write, and before and after each fsync,
  link, rename and other call of one save of `last.ckpt` and `best/`;
- `trainings`: a real training of a tiny detector is killed at random moments and resumed until it
  is done. Its result must equal that of a training that was never killed, bit for bit.

A save is acknowledged when the saving process says so, after the save returned. Processes are
forked from one that has loaded everything, so that a kill costs milliseconds. A kill does not lose
what the kernel has not yet written: only a loss of power does, and that is what the fsyncs are for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import torch
from benchmarks.saving import blank_contents
from torch import nn

from od_detr import checkpoints
from od_detr.checkpoints import load_checkpoint
from od_detr.data.scenes import render_scenes
from od_detr.detectors import build_detector, load_detector
from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles
from od_detr.training.fit import fit
from od_detr.training.record.run_directory import RunDirectory
from od_detr.training.record.state import SECONDS

TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "backbone_options": {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)},
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "queries": 12,
    "feedforward": 32,
    "num_levels": 3,
}
CALLS = ("open", "os.rename", "os.link", "os.remove", "os.chmod")  # as Python's audit names them
WHEN = ("before", "halfway", "after")


class Saver:
    """Saves numbered states of a run: every tensor of state n is full of n.

    Args:
        files: the run's files.
    """

    def __init__(self, files: RunFiles) -> None:
        self.directory = RunDirectory(files, ["a", "b"], {"category_ids": [1, 2]})
        self.files = files
        files.config.parent.mkdir(parents=True, exist_ok=True)
        files.config.touch()  # a run has it from its start
        self.detector = build_detector("deformable-detr-plus", 2, **TINY)

    def resume(self) -> int:
        """Goes on as a training does; the number of the state that was found, or 0."""
        checkpoint = load_checkpoint(self.files) if self.files.is_saved else None
        self.directory.tidy(checkpoint)
        return 0 if checkpoint is None else checkpoint.contents["global_step"]

    def save(self, number: int) -> None:
        """Saves a state in `best/` and then in `last.ckpt`, in the order of a training."""
        for weight in self.detector.parameters():
            nn.init.constant_(weight, number)
        summary = {"AP": 0.5, "best_threshold": 0.5}
        self.directory.write_best(self.detector, "online", number, {"online": summary})
        contents = blank_contents()
        weights = {name: torch.full((50_000,), float(number)) for name in ("first", "last")}
        self.directory.write_last(contents | {"state_dict": weights, "global_step": number})

    def faults(self, acknowledged: int) -> list[str]:
        """What is wrong with what a killed saver left: lost or torn states, or none to resume."""
        if not self.files.is_saved:
            return ["lost"] if acknowledged else []
        faults = []
        try:
            checkpoint = load_checkpoint(self.files)
            number = checkpoint.contents["global_step"]
            tensors = checkpoint.contents["state_dict"].values()
            if checkpoint.notice or not all(bool((each == number).all()) for each in tensors):
                faults.append("torn last.ckpt")
            if number < acknowledged:
                faults.append("lost last.ckpt")
            detector, config = load_detector(self.files.best)
            number = config["epoch"]
            if not all(bool((each == number).all()) for each in detector.parameters()):
                faults.append("torn best")
            if number < acknowledged:
                faults.append("lost best")
        except InputError as error:
            faults.append(f"not resumed: {error}")
        return faults


def random_kills(directory: Path, kills: int, seed: int = 0) -> Counter[str]:
    """Kills a saver at random moments."""
    random, found = Random(seed), Counter[str]()
    saver = Saver(RunFiles(directory))
    longest = 6 * _seconds_of_a_save(saver)
    acknowledged = 0
    for _ in range(kills):
        with forked(partial(_save_without_pause, saver)) as (process, said):
            time.sleep(random.uniform(0, longest))
            os.kill(process, signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, said)])
        found.update(kills=1, acknowledged=len(said))
        found.update(saver.faults(acknowledged))
    saver.resume()
    found["left over"] += len(list(directory.rglob("*.part")))
    return found


def kills_at_calls(directory: Path, every: int = 1) -> Counter[str]:
    """Kills a saver at each call of one save, or at every so many of them.

    It is killed before the call, halfway through a write, and after the call.
    """
    found = Counter[str]()
    saver = Saver(RunFiles(directory))
    saver.save(1)
    saver.save(2)
    with forked(partial(_save_and_die, saver, 0, "never")) as (_, said):
        pass
    acknowledged, calls = map(int, said)
    found["calls"] = calls
    for when, place in product(WHEN, range(1, calls + 1, every)):
        with forked(partial(_save_and_die, saver, place, when)) as (_, said):
            pass
        acknowledged = int(said[0]) if said else acknowledged
        found["kills"] += not said
        found.update(saver.faults(acknowledged))
    saver.resume()
    found["left over"] += len(list(directory.rglob("*.part")))
    return found


def killed_trainings(directory: Path, kills: int, seed: int = 0) -> Counter[str]:
    """Kills a training at random moments, resumes it, and compares it with an undisturbed one."""
    random, found = Random(seed), Counter[str]()
    render_scenes(directory / "data", 12, 4, 64, seed=0)
    sizes = {name: value for name, value in TINY.items() if name != "backbone_options"}
    layers = {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}
    options = TrainOptions(
        str(directory / "data"),
        output=str(directory / "whole"),
        epochs=8,
        image_size=64,
        batch_size=4,
        workers=0,
        device="cpu",
        backbone_weights="none",
        backbone_options=layers,
        **sizes,
    )
    start = time.monotonic()
    with forked(lambda said: (fit(options), said("1"))) as (_, said):
        pass
    if said != ["1"]:
        raise RuntimeError("the training that nobody kills failed")
    seconds = time.monotonic() - start
    run = RunFiles(directory / "killed")
    options = replace(options, output=str(run.directory))
    step, done = 0, False
    for turn in range(10 * kills):
        resumed = replace(options, resume=run.is_begun)
        with forked(lambda said, chosen=resumed: (fit(chosen), said("1"))) as (process, said):
            if turn < kills:
                time.sleep(random.uniform(0, seconds / 2))
                os.kill(process, signal.SIGKILL)
        found.update(kills=int(turn < kills))
        if run.is_saved:
            now = load_checkpoint(run)
            found["torn last.ckpt"] += bool(now.notice)
            found["lost last.ckpt"] += now.contents["global_step"] < step
            step = now.contents["global_step"]
        if done := said == ["1"] and turn >= kills:
            break
        found["not resumed"] += turn >= kills
    same = done and _result(run) == _result(RunFiles(directory / "whole"))
    found["other result"] += not same
    found["left over"] += len(list(run.directory.rglob("*.part")))
    return found


@contextmanager
def forked(work: Callable[[Callable[[str], None]], object]) -> Iterator[tuple[int, list[str]]]:
    """Does `work` in a copy of this process, which ends with it or is killed.

    Yields:
        Its number, and the words that it said: complete when the block is left.
    """
    source, sink = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(source)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            work(lambda word: os.write(sink, f"{word}\n".encode()) and None)
        finally:
            os._exit(0)
    os.close(sink)
    said: list[str] = []
    try:
        yield process, said
    finally:
        with os.fdopen(source) as words:
            said += words.read().split()
        os.waitpid(process, 0)


def _save_without_pause(saver: Saver, said: Callable[[str], None]) -> None:
    number = saver.resume()
    while True:
        number += 1
        saver.save(number)
        said(str(number))


def _save_and_die(saver: Saver, place: int, when: str, said: Callable[[str], None]) -> None:
    """Saves one more state, but is killed at the call of this number; says how many there were."""
    number = saver.resume() + 1
    calls = 0

    def die(now: str) -> None:
        nonlocal calls
        if now == "before":
            calls += 1
        if calls == place and now == when:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            die("before")
            result = original(*arguments, **named)
            die("after")
            return result

        return wrapped

    write = checkpoints._Hashing.write

    def written(self: Any, data: memoryview) -> int:
        die("before")
        if when == "halfway" and calls == place:
            write(self, bytes(data)[: len(data) // 2])
            self.flush()
            die("halfway")
        count = write(self, data)
        self.flush()
        die("after")
        return count

    checkpoints._Hashing.write = written  # type: ignore[method-assign]
    os.fsync, os.replace, os.link = (around(each) for each in (os.fsync, os.replace, os.link))
    sys.addaudithook(lambda event, _: die("before") if event in CALLS else None)
    saver.save(number)
    said(f"{number} {calls}")


def _seconds_of_a_save(saver: Saver) -> float:
    number = saver.resume() + 1
    saver.save(number)
    start = time.monotonic()
    saver.save(number + 1)
    return time.monotonic() - start


def _result(run: RunFiles) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a training came to, in values that can be compared."""
    contents = load_checkpoint(run).contents
    weights = {
        name: value.numpy().tobytes() if torch.is_tensor(value) else value
        for name, value in contents["state_dict"].items()
    }
    rows = [row | {SECONDS: 0} for row in contents["run"]["rows"]]
    return weights, [{name: str(value) for name, value in row.items()} for row in rows]


FAULTS = ("lost", "torn", "not resumed", "other result", "left over")


def sound(found: Counter[str]) -> bool:
    """Whether there was no fault of any kind."""
    return not any(number for name, number in found.items() if name.startswith(FAULTS))


def main() -> int:
    """Runs all three parts and prints what was found; 1 if anything was lost or torn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--random", type=int, default=500)
    parser.add_argument("--trainings", type=int, default=20)
    parser.add_argument("--directory", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(dir=given.directory) as parent:
        for name, part in {
            "random": partial(random_kills, kills=given.random),
            "calls": kills_at_calls,
            "trainings": partial(killed_trainings, kills=given.trainings),
        }.items():
            folder = Path(parent, name)
            folder.mkdir()
            start = time.monotonic()
            results[name] = part(folder)
            results[name]["seconds"] = round(time.monotonic() - start)
            print(json.dumps({name: results[name]}), flush=True)
    return 0 if all(map(sound, results.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
