"""Trains planned runs, one by one or several at a time.

A finished run is never repeated, and a stopped run is resumed.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from od_detr.dotted import flat
from od_detr.errors import InputError, Interrupted, NonFiniteError, ProcessLostError
from od_detr.files import atomic_write, locked, read_json
from od_detr.options import TrainOptions
from od_detr.plain_yaml import parse_yaml
from od_detr.ranks import is_chief
from od_detr.run_files import RunFiles, kept_name

# Where a run happens and what it survives, not what it is.
ELSEWHERE = ("output", "resume", "workers", "device", "on_unreadable")
OF_INIT = ("backbone_options",)  # what `init` decides without being None before
PLACES = ("data", "init", "backbone_weights")  # which may have moved, but not under another name


def finished(options: TrainOptions) -> dict[str, Any] | None:
    """The result of the run of these options, or None if it is still to be trained, from the start
    or further.

    Raises:
        InputError: its directory holds a run of other options.
    """
    files = RunFiles(Path(options.output))
    if files.config.exists():
        try:
            before = parse_yaml(files.config.read_text())
        except ValueError as error:
            raise InputError(f"{files.config}: {error}; restore it, or remove the run") from error
        other = _difference(before, options)
        if other:
            raise InputError(
                f"{files.directory}: holds a run of other options ({other}); give another "
                "--output, or remove it"
            )
    if not files.done.exists():
        return None
    return read_json(files.done, "result of a run", "remove it, and the run is finished again")


def train(options: TrainOptions) -> None:
    """Trains a run, or what is missing of it, and leaves `done.json`: figures, options, commit,
    seconds.

    Raises:
        InputError: as `fit` does, or another process trains this run.
        KeyboardInterrupt: stopped, everything saved.
    """
    if not is_chief():
        _train(options)
        return
    files = RunFiles(Path(options.output))
    files.directory.mkdir(parents=True, exist_ok=True)
    refusal = (
        f"{files.directory}: another process trains this run; wait for it, or give other --rows"
    )
    with locked(files.lock, refusal):
        if finished(options) is None:  # it may have been finished by another since it was planned
            _train(options)


def _train(options: TrainOptions) -> None:
    from od_detr.inference.evaluate import evaluate_run
    from od_detr.training.fit import fit
    from od_detr.training.record.run_config import plain

    files, started, source = RunFiles(Path(options.output)), time.perf_counter(), commit()
    resumed = files.is_saved
    if (
        not resumed and files.config.exists()
    ):  # killed in its first epoch, between one file and the other
        shutil.rmtree(files.best, ignore_errors=True)
    try:
        run = fit(replace(options, resume=resumed))
    except Interrupted:
        raise KeyboardInterrupt from None
    if not is_chief():
        return
    names = ["online", "teacher"] if options.distils or options.ema.track else ["online"]
    metrics = {}
    for name in names:  # a run that was stopped after its last epoch has nothing left to validate
        summary = run.summaries.get(name) or evaluate_run(
            files.directory, Path(options.data), weights=name
        )
        metrics[name] = {
            key: value
            for key, value in summary.items()
            if isinstance(value, int | float) or key == "per_iou"
        }
    facts = {
        "run": files.directory.name,
        "commit": source,
        "environment": environment(options.device),
    }
    facts |= {"seconds": time.perf_counter() - started, "resumed": resumed}
    facts |= metrics | {"last": run.rows[-1], "options": plain(asdict(options))}
    with atomic_write(files.done) as partial:
        partial.write_text(json.dumps(facts, indent=1))
    if run.stop_asked:
        raise KeyboardInterrupt


def trained(todo: Sequence[TrainOptions], jobs: int) -> Iterator[TrainOptions]:
    """Trains all, here or `jobs` at a time, and yields each when it is done."""
    if jobs > 1:
        yield from side_by_side(train, todo, jobs)
        return
    for options in todo:
        train(options)
        yield options


def side_by_side(
    work: Callable[[TrainOptions], None], todo: Sequence[TrainOptions], jobs: int
) -> Iterator[TrainOptions]:
    """Does `work` in processes of one thread each; what they print goes to the run's `train.log`.

    Where one fails or this process is stopped, the others are asked to save and to stop.

    Raises:
        InputError: as the process reported it.
        NonFiniteError: as the process reported it.
        ProcessLostError: a process was killed, or failed otherwise.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the processes when they load torch
    context = multiprocessing.get_context("spawn")
    waiting, running = list(todo), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                options = waiting.pop(0)
                process = context.Process(target=_apart, args=(work, options))
                process.start()
                running[process.sentinel] = (process, options)
            for sentinel in wait(list(running)):
                process, options = running.pop(sentinel)  # type: ignore[call-overload]
                process.join()
                _check(process.exitcode, RunFiles(Path(options.output)).log)
                yield options
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def _apart(work: Callable[[TrainOptions], None], options: TrainOptions) -> None:
    """The life of such a process."""
    if hasattr(os, "setsid"):  # Ctrl-C reaches it through its parent only, once
        os.setsid()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    log = RunFiles(Path(options.output)).log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # an error must be the log's last line
    try:
        work(options)
    except (InputError, NonFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)


def _leave_with_parent() -> None:
    """Saves and stops this process when its parent is gone, so that nothing trains unnoticed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _check(status: int | None, log: Path) -> None:
    if status == 0:
        return
    if status == 130:
        raise KeyboardInterrupt
    last = "".join(log.read_text().rstrip().splitlines()[-1:]) if log.exists() else ""
    for kind in (InputError, NonFiniteError):
        if status == kind.status:
            raise kind(last.removeprefix("error: "))
    if status is not None and status < 0:
        raise ProcessLostError(
            f"a training was killed by signal {-status}, see {log}; run the same command again to "
            "continue"
        )
    raise ProcessLostError(f"a training ended with status {status}, see {log}: {last}")


def commit() -> str | None:
    """The commit of this package's source, with -dirty where it was changed.

    None outside a checkout.
    """
    here = Path(__file__)
    try:
        for arguments in (
            ["ls-files", "--error-unmatch", here.name],
            ["describe", "--always", "--dirty", "--abbrev=12"],
        ):
            said = subprocess.run(
                ["git", "-C", str(here.parent), *arguments],
                capture_output=True,
                text=True,
                check=True,
            )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def environment(device: str) -> dict[str, str]:
    """What the figures of a run depend on besides its options and its source."""
    import torch

    gpu = torch.cuda.get_device_name() if device != "cpu" and torch.cuda.is_available() else ""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    } | ({"gpu": gpu} if gpu else {})


def _difference(kept: dict[str, Any], options: TrainOptions) -> str:
    """The first option, by its dotted name, that a run's `config.yaml` has otherwise.

    Empty if there is none.
    """
    from od_detr.training.record.resume import first_difference
    from od_detr.training.record.run_config import plain

    if options.init is None:
        options = replace(options, backbone=options.backbone_name)
    before, wanted = flat(kept), flat(plain(asdict(options)))
    for name in PLACES:
        before[name], wanted[name] = (kept_name(str(each.get(name))) for each in (before, wanted))
    ignored = ELSEWHERE + (OF_INIT if options.init else ())
    compared = {name: value for name, value in wanted.items() if name not in ignored}
    name = first_difference(before, compared)
    return f"--{name.replace('_', '-')} {before[name]} instead of {wanted[name]}" if name else ""
