"""Runs commands in processes that are forked from one which has imported everything already.

Importing what a training needs takes longer than a tiny training does.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

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


def start(command: Sequence[str], environment: Mapping[str, str]) -> Running:
    """Starts `python COMMAND`.

    Args:
        command: a script, or "-m" and a module, and its arguments.
        environment: all variables of the process.
    """
    file, output = tempfile.mkstemp()
    os.close(file)
    errors, write = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_run, args=([*command], dict(environment), output, write))
    process.start()
    write.close()
    return Running(process, Path(output), errors)


def _run(command: list[str], environment: dict[str, str], output: str, errors: Connection) -> None:
    """What the forked process does."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), 1)
    os.dup2(errors.fileno(), 2)
    sys.orig_argv = [sys.executable, *command]
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
    finally:  # a forked process leaves them out
        atexit._run_exitfuncs()
