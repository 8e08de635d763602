"""Starting the processes of a run, connecting them, and naming the one that was lost."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment

from od_detr import ranks
from od_detr.errors import InputError, ProcessLostError
from od_detr.ranks import MAIN_NODE, OWN, Ranks

ROLL_CALL_SECONDS = 20.0  # for a process that is busy with a step to find out that one is lost
MORE_SECONDS = 2.0  # for further losses to be noted, once one is known
REPORTED = "ended with"  # how the note of a process begins that fails by itself
HERE = "is here"  # the note of a process that is not lost
ALARM = "alarm"  # is in the store as soon as any process has noted something
STORE_TIMEOUT = timedelta(seconds=5)


class Launched(ClusterEnvironment):
    """Gives Lightning the ranks that `od_detr.ranks` found, so that both always agree.

    Args:
        place: The place of this process. All processes are started outside Lightning.
    """

    def __init__(self, place: Ranks) -> None:
        self.place = place

    creates_processes_externally = True  # type: ignore[assignment]

    @property
    def main_address(self) -> str:
        """Host of rank 0: MASTER_ADDR, else the first node of the SLURM job, else this machine."""
        given, *of_slurm = map(os.environ.get, MAIN_NODE)
        nodes = next(filter(None, of_slurm), "127.0.0.1")
        return given or SLURMEnvironment.resolve_root_node_address(nodes)

    @property
    def main_port(self) -> int:
        """Port of rank 0: MASTER_PORT, else a number that all tasks of a SLURM job agree on."""
        job = os.environ.get("SLURM_JOB_ID", "0")
        return int(os.environ.get("MASTER_PORT") or 15000 + int(job[-4:]))

    @staticmethod
    def detect() -> bool:
        """Never by itself: the place is given."""
        return False

    def world_size(self) -> int:
        """Number of processes on all nodes."""
        return self.place.world_size

    def set_world_size(self, size: int) -> None:
        """Checks that Lightning counts as many."""
        assert size == self.place.world_size

    def global_rank(self) -> int:
        """Number of this process."""
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        """Checks that Lightning counts alike."""
        assert rank == self.place.rank

    def local_rank(self) -> int:
        """Number of this process on its node."""
        return self.place.local_rank

    def node_rank(self) -> int:
        """Number of the node."""
        return self.place.node


@dataclass
class Team:
    """The processes that train together, as one of them sees them.

    Attributes:
        place: This process.
        children: The processes that it started, by rank.
        store: Where each process notes that it noticed a failure; None until `connect`.
    """

    place: Ranks
    children: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    store: Any = None
    _alarmed: bool = False

    def connect(self) -> None:
        """Opens the store; to be called by all processes when they can communicate."""
        if not ranks.is_distributed():
            return
        host = os.environ["MASTER_ADDR"]
        if self.place.is_chief:
            self.store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
        port = ranks.gathered(self.store.port if self.place.is_chief else None)[0]
        if not self.place.is_chief:
            self.store = dist.TCPStore(host, port, wait_for_workers=False, timeout=STORE_TIMEOUT)
        over = threading.Event()
        answering = threading.Thread(target=self._answer, args=(over,), daemon=True)
        answering.start()
        # A thread inside of torch would abort a process that ends.
        atexit.register(answering.join)
        atexit.register(over.set)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turns the failure of one process into one line, printed by the first that is left.

        Raises:
            ProcessLostError: Another process ended; the message names its rank, node and cause.
            SystemExit: With status 1, where another process reports it.
        """
        try:
            yield
        except BaseException as error:
            if self.store is None:
                self.abandon()
                raise
            if not _is_lost_connection(error):
                self._note(f"{REPORTED} {_cause(error)}")
                self._wait_for_others()
                if isinstance(error, InputError) and not self.place.is_chief:
                    sys.exit(2)  # rank 0 reports it
                raise
            lost = self._roll_call()
            if self._alarmed and self._store_is_gone():
                sys.exit(1)  # rank 0 has reported the loss before it ended
            if not lost:
                raise
            if self.place.rank != self._reporter(lost):
                sys.exit(1)
            raise self._report(lost) from error

    def wait(self, seconds: float = ROLL_CALL_SECONDS) -> None:
        """Lets the processes that it started end before this one, which keeps their connections."""
        for child in self.children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(seconds)

    def abandon(self) -> None:
        """Ends the processes that it started: they would wait for this one to connect."""
        for child in self.children.values():
            child.kill()  # while they connect they hear no other signal, and have nothing to save
            child.wait()

    def _report(self, lost: dict[int, str]) -> ProcessLostError:
        """The line about lost processes, once the others have answered or do not."""
        for rank, cause in lost.items():
            self.witness(rank, cause)
        self._wait_for_others()
        causes = "; ".join(f"{self._named(rank)} {cause}" for rank, cause in lost.items())
        return ProcessLostError(f"{causes}; continue from the last save with --resume --output RUN")

    def _reporter(self, lost: dict[int, str]) -> int:
        """Rank 0, unless it was lost without a word; then the first that is left."""
        if lost.get(0, REPORTED).startswith(REPORTED):
            return 0
        return min(set(range(self.place.world_size)) - lost.keys())

    def _note(self, text: str) -> None:
        with suppress(RuntimeError):  # the process that keeps the store is the lost one
            self.store.set(str(self.place.rank), text)
            self.store.set(ALARM, "")

    def witness(self, rank: int, text: str) -> None:
        """Notes how a process ended, if that one has not done so itself."""
        if self.store is None:
            return
        with suppress(RuntimeError):
            self.store.compare_set(str(rank), "", text)
            self.store.set(ALARM, "")

    def _answer(self, over: threading.Event) -> None:
        """Answers a roll call for the main thread, which may be waiting for another process.

        A process that lost a neighbour keeps its connections while it calls the roll. So those
        that wait for this process do not learn of the loss before it ends.
        """
        with suppress(RuntimeError):
            while not self.store.check([ALARM]):
                if over.wait(1):
                    return
            self._alarmed = True
            self.witness(self.place.rank, HERE)

    def _roll_call(self) -> dict[int, str]:
        """The ranks that are lost, and how each of them ended."""
        self._note(HERE)
        others = set(range(self.place.world_size)) - {self.place.rank}
        found: dict[int, str] = {}
        end = time.monotonic() + ROLL_CALL_SECONDS
        while time.monotonic() < end and others - found.keys():
            for rank in others - found.keys():
                status = self.children[rank].poll() if rank in self.children else None
                if (noted := self._noted(rank)) is not None:
                    found[rank] = noted
                elif status not in (None, 0):
                    found[rank] = _ending(status)
            if any(found.values()):
                end = min(end, time.monotonic() + MORE_SECONDS)
            if others - found.keys():
                time.sleep(0.2)
        lost = {rank: text for rank, text in found.items() if text}
        missing = dict.fromkeys(others - found.keys(), "does not answer; it was killed or stopped")
        return dict(sorted((lost or missing).items()))

    def _noted(self, rank: int) -> str | None:
        """What a process noted, or another of it: how it ended, "" if it is there; else None."""
        try:
            if not self.store.check([str(rank)]):
                return None
            return self.store.get(str(rank)).decode().removeprefix(HERE)
        except RuntimeError:  # the store is gone with rank 0
            return "was killed or stopped" if rank == 0 else ""

    def _store_is_gone(self) -> bool:
        try:
            self.store.check([ALARM])
        except RuntimeError:
            return True
        return False

    def _wait_for_others(self) -> None:
        """Keeps the store open until the others have read why this process ends."""
        if self.place.is_chief:
            others = [str(rank) for rank in range(1, self.place.world_size)]
            with suppress(RuntimeError):
                self.store.wait(others, STORE_TIMEOUT)

    def _named(self, rank: int) -> str:
        place, local = self.place, rank % self.place.devices
        return f"rank {rank} (node {rank // place.devices}, local rank {local})"


def start(place: Ranks) -> Team:
    """Starts the other processes of this machine, unless a launcher has started them.

    They run the command line of this process again, with their place in environment variables.

    Raises:
        InputError: Python runs interactively, so that there is no command to run again.
    """
    if place.launcher != OWN or ranks.current().is_launched:
        return Team(place)
    if hasattr(sys, "ps1"):
        raise InputError(
            f"--devices {place.devices}: cannot start other processes from an interactive session; "
            "write a script, or use od-detr train"
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    os.environ |= {
        "NODE_RANK": str(place.node),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(place.world_size),
        "OD_DETR_NODES": str(place.nodes),
    }
    # torch warns at length when rank 0 is gone, which we report in one line.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    command = [sys.executable, *sys.orig_argv[1:]]
    children = {
        place.rank + local: subprocess.Popen(command, env={**os.environ, "LOCAL_RANK": str(local)})
        for local in range(1, place.devices)
    }
    team = Team(place, children)
    threading.Thread(target=_stop_after_a_loss, args=(team,), daemon=True).start()
    return team


def _stop_after_a_loss(team: Team) -> None:
    """Ends all processes of this machine some time after one of them failed.

    A process that waits for the lost one on a GPU waits for ever, and cannot report it itself.
    """
    while True:
        time.sleep(1)
        status = {rank: child.poll() for rank, child in team.children.items()}
        lost = {rank: code for rank, code in status.items() if code}
        if lost:
            break
        if all(code == 0 for code in status.values()):
            return
    for rank, code in lost.items():
        team.witness(rank, _ending(code))
    time.sleep(ROLL_CALL_SECONDS + 10)
    rank, code = next(iter(lost.items()))
    print(f"error: {team._named(rank)} {_ending(code)}", file=sys.stderr, flush=True)
    for child in team.children.values():
        child.kill()
    os._exit(1)


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a collective operation failed since another process is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def _cause(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0]}" if lines else "")


def _ending(status: int | None) -> str:
    """What an exit status says, such as "was killed (SIGKILL)"."""
    if status is not None and status < 0:
        return f"was killed ({signal.Signals(-status).name})"
    return f"ended with status {status}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
