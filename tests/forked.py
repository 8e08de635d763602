"""Runs commands in processes that are forked from one which has imported everything already.

Importing what a training needs takes longer than a tiny training does.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.process
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from od_detr.training.processes import launch

SERVER: Any = forkserver._forkserver
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["od_detr.training.fit", "od_detr.evaluation.scoring", "torch.distributed.launcher"]
)


@dataclass(frozen=True)
class Running:
    """A command that was started.

    Attributes:
        process: its first process, which may start others.
        output: file with what it prints.
        errors: read end of its standard error, which all its processes share.
    """

    process: ForkServerProcess
    output: Path
    errors: Connection

    def interrupt(self) -> None:
        """Sends its first process what Ctrl-C sends."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGINT)

    def ended(self, seconds: float) -> tuple[int | None, str, str]:
        """Waits until none of its processes is left; exit status, output and errors.

        Raises:
            TimeoutError: one is left after so many seconds.
        """
        end, said = time.monotonic() + seconds, b""
        with self.errors:
            while self.errors.poll(max(0.0, end - time.monotonic())):
                piece = os.read(self.errors.fileno(), 65536)
                if not piece:
                    self.process.join()
                    printed = self.output.read_text()
                    self.output.unlink()
                    return self.process.exitcode, printed, said.decode()
                said += piece
        self.process.kill()
        raise TimeoutError(f"a process is left after {seconds} seconds: {said.decode()}")


def start(
    command: Sequence[str], environment: Mapping[str, str], launches: bool = False
) -> Running:
    """Starts `python COMMAND`.

    Args:
        command: a script, or "-m" and a module, and its arguments.
        environment: all variables of the process.
        launches: whether the process may launch the other ranks as it does for users, by
            `subprocess.Popen`. Otherwise they are forked like itself.
    """
    file, output = tempfile.mkstemp()
    os.close(file)
    errors, write = FORKS.Pipe(duplex=False)
    SERVER.ensure_running()
    server = None if launches else SERVER._forkserver_address
    arguments = ([*command], dict(environment), output, write, server)
    process = FORKS.Process(target=_run, args=arguments)
    process.start()
    write.close()
    return Running(process, Path(output), errors)


class Rank:
    """A forked process, with what a run's own launch uses of `subprocess.Popen`.

    Args:
        rest: arguments of `_run` after the environment.
        command: the Python interpreter, and what it is to run.
        env: all variables of the process.
    """

    def __init__(self, rest: tuple[Any, ...], command: list[str], env: dict[str, str]) -> None:
        self.process = FORKS.Process(target=_run, args=(command[1:], env, *rest))
        self.process.start()
        # A process that ends waits for those in this set.
        vars(multiprocessing.process)["_children"].discard(self.process)
        self.lock = threading.Lock()

    def poll(self) -> int | None:
        with self.lock:
            return self.process.exitcode

    def wait(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()


def _run(
    command: list[str],
    environment: dict[str, str],
    output: str,
    errors: Connection,
    server: str | None,
) -> None:
    """What the forked process does; `server` forks the ranks that it launches."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), 1)
    os.dup2(errors.fileno(), 2)
    sys.orig_argv = [sys.executable, *command]
    if server is not None:
        SERVER._forkserver_address = server
        SERVER.ensure_running = lambda: None
        forked = partial(Rank, (output, errors, server))
        launch.subprocess = SimpleNamespace(  # type: ignore[assignment]
            Popen=forked, TimeoutExpired=subprocess.TimeoutExpired
        )
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            # Not by `runpy`: a process that is forked from one with a file as main module runs it.
            script = compile(Path(command[0]).read_text(), command[0], "exec")
            exec(script, {"__name__": "__main__"})
    finally:  # a forked process leaves them out
        atexit._run_exitfuncs()
