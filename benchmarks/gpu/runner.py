"""Runs checks in processes of their own, so that whatever fails leaves the others.

A CUDA error poisons its process for good, and a crash ends it. So a part's checks run one after the
other in a worker process. The worker appends a line to `results.jsonl` when a check begins and when
it ends. If it dies or hangs, the check it was at counts as failed and a new worker goes on with the
rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.scale import Scale

ROOT = Path(__file__).resolve().parents[2]
RESULTS, LOG = "results.jsonl", "log.txt"
GRACE = 10  # seconds that a check may run past its part's time
POISONED = 3  # exit status of a worker whose CUDA context is broken
Figures = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One thing to find out.

    Args:
        name: unique in its part.
        run: returns figures by name; "holds" among them tells whether a law holds.
        seconds: what it needs on a GPU; it is left out if less is left.
    """

    name: str
    run: Callable[[Scale], Figures]
    seconds: float


def work(checks: Sequence[Check], names: Sequence[str], scale: Scale, output: Path, until: float):
    """What a worker process does: the named checks, each recorded as soon as it ends."""
    for check in (check for check in checks if check.name in names):
        if time.time() + check.seconds * (not scale.quick) > until:
            record(output, check.name, skipped="no time left")
            continue
        start = time.time()
        record(output, check.name, begun=start, limit=limit_of(check, scale))
        try:
            figures = check.run(scale)
        except Exception as error:  # whatever it is, the other checks go on
            lines = traceback.format_exc().strip().splitlines()
            record(output, check.name, failed=f"{type(error).__name__}: {error}"[:600])
            print("\n".join(lines[-30:]), flush=True)
            if scale.cuda and poisoned():
                os._exit(POISONED)
            continue
        record(output, check.name, seconds=round(time.time() - start, 1), **figures)


def limit_of(check: Check, scale: Scale) -> float:
    """Seconds after which a check is taken to hang. The miniature may run on a busy machine."""
    return (30 + 4 * check.seconds) * (20 if scale.quick else 1)


def poisoned() -> bool:
    """Whether CUDA refuses further work in this process."""
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except Exception:  # its type differs between versions of PyTorch
        return True
    return False


def record(output: Path, name: str, **facts: Any) -> None:
    """Appends a line of `results.jsonl`; the last of a check counts."""
    line = json.dumps({"check": name, **facts})
    with (output / RESULTS).open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def recorded(output: Path) -> dict[str, Figures]:
    """The last line of each check, without its name."""
    file, found = output / RESULTS, {}
    for line in file.read_text().splitlines() if file.exists() else []:
        facts = json.loads(line)
        found[facts.pop("check")] = facts
    return found


def overdue(name: str, found: dict[str, Figures]) -> bool:
    """Whether a check began and has been running for longer than it may."""
    facts = found.get(name, {})
    return "begun" in facts and facts["begun"] + facts["limit"] < time.time()


def run_part(
    part: str, names: Sequence[str], arguments: Sequence[str], output: Path, until: float
) -> None:
    """Has workers do the part's checks until `until`, in seconds since the epoch."""
    left = list(names)
    while left:
        _one_worker(part, left, arguments, output, until)
        done = recorded(output)
        begun = [name for name in left if name in done]
        left = [name for name in left if name not in done]
        for name in begun:
            if "begun" in done[name]:
                record(output, name, failed="its process died or ran past its time")
        if left and (not begun or time.time() > until):
            for name in left:
                record(output, name, failed="its process did not come to it")
            return


def _one_worker(
    part: str, names: Sequence[str], arguments: Sequence[str], output: Path, until: float
) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--worker", part, "--checks", *names]
    command += ["--output", str(output), "--until", str(until), *arguments]
    # cuBLAS reads its setting once, at the start; only it makes deterministic products possible.
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": search_path()}
    if part == "laws":
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    with (output / LOG).open("a") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            time.sleep(0.2)
            found = recorded(output)
            if any(overdue(name, found) for name in names) or time.time() > until + GRACE:
                process.kill()
                process.wait()


def search_path() -> str:
    """PYTHONPATH of the processes started here: this package's source first."""
    return os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
