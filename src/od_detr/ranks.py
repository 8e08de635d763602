"""Which process this is, of those that train one detector together.

The launcher says it in environment variables: our own launch on one machine, torchrun, SLURM's
srun, or another one that sets the usual names. Everything that depends on the process asks here.
torch is imported only by the functions that communicate.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from od_detr.errors import LaunchError

if TYPE_CHECKING:
    from torch import Tensor

ALONE, OWN, SRUN = "none", "own launch", "srun"
# Where the host of rank 0 is found, in this order.
MAIN_NODE = ("MASTER_ADDR", "SLURM_STEP_NODELIST", "SLURM_NODELIST")


@dataclass(frozen=True)
class Ranks:
    """The place of a process among those that train together.

    Attributes:
        rank: Number of the process, 0 to `world_size` - 1; 0 writes, prints and saves.
        world_size: Number of processes on all nodes.
        local_rank: Number of the process on its node; it is the number of its device.
        node: Number of the node, 0 to `nodes` - 1.
        nodes: Number of machines.
        launcher: Who started the process, as a message may name it; "none" for a single process.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    node: int = 0
    nodes: int = 1
    launcher: str = ALONE

    def __post_init__(self) -> None:
        """Checks that the numbers agree with each other."""
        per_node = self.world_size // max(1, self.nodes)
        fits = (
            per_node * self.nodes == self.world_size >= 1
            and 0 <= self.rank < self.world_size
            and 0 <= self.local_rank < per_node
            and self.rank == self.node * per_node + self.local_rank
        )
        if not fits:
            raise LaunchError(
                f"{self.launcher}: rank {self.rank} of {self.world_size}, local rank "
                f"{self.local_rank}, node {self.node} of {self.nodes} contradict each other; start "
                "equally many processes on each node, numbered node by node"
            )

    @property
    def devices(self) -> int:
        """Processes on each node, one for each device."""
        return self.world_size // self.nodes

    @property
    def is_chief(self) -> bool:
        """Whether this process writes, prints and saves for all."""
        return self.rank == 0

    @property
    def is_launched(self) -> bool:
        """Whether a launcher started this process together with others."""
        return self.launcher != ALONE

    @property
    def other_launcher(self) -> str | None:
        """The launcher, where that is not this package."""
        return None if self.launcher in (ALONE, OWN) else self.launcher


def current(environment: Mapping[str, str] | None = None) -> Ranks:
    """The place of this process, from the environment variables of the launcher that is there.

    Args:
        environment: The variables; by default those of this process.

    Raises:
        LaunchError: A variable is not a number, or the numbers contradict each other.
    """
    variables = os.environ if environment is None else environment
    found = (read(variables) for read in (_own, _torchrun, _mpi, _srun))
    return next((ranks for ranks in found if ranks is not None), Ranks())


def settled(
    devices: int | None, nodes: int | None, environment: Mapping[str, str] | None = None
) -> Ranks:
    """The place of this process once `devices` processes run on each of `nodes` machines.

    What is None is the launcher's number, or 1 without a launcher. Without a launcher the process
    starts the others of its machine itself when training begins.

    Raises:
        LaunchError: The launcher's numbers differ from those asked for, or there are several nodes
            and nothing says which of them this is, or where rank 0 is.
    """
    variables = os.environ if environment is None else environment
    ranks = current(variables)
    if not ranks.is_launched:
        return _before_own_launch(devices or 1, nodes or 1, variables)
    for option, asked, given in (
        ("nodes", nodes, ranks.nodes),
        ("devices", devices, ranks.devices),
    ):
        if asked not in (None, given):
            raise LaunchError(
                f"--{option} {asked}: {ranks.launcher} started {ranks.devices} on each of "
                f"{ranks.nodes} nodes, {ranks.world_size} processes in all; "
                f"give --{option} {given}, or leave it out"
            )
    if ranks.nodes > 1 and not any(variables.get(name) for name in MAIN_NODE):
        raise LaunchError(
            f"{ranks.launcher}: started processes on {ranks.nodes} nodes, and nothing says where "
            "rank 0 is; set MASTER_ADDR to its host and MASTER_PORT to a free port on every node"
        )
    return ranks


_SETTLED: ContextVar[Ranks | None] = ContextVar("settled", default=None)


def settle(place: Ranks) -> None:
    """Remembers a place that no launcher has told this process: what `settled` has found."""
    _SETTLED.set(None if place.launcher == ALONE or current().is_launched else place)


def is_chief() -> bool:
    """Whether this process writes, prints and saves for all that train together."""
    return (_SETTLED.get() or current()).is_chief


_ALONE = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Computes as a single process inside the block, even if this one is connected to others."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def is_distributed() -> bool:
    """Whether this process is connected to others, and takes a common step with them."""
    if "torch" not in sys.modules or _ALONE.get():
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def gathered(value: Any) -> list[Any]:
    """The value of every process, in the order of ranks; a value must be picklable."""
    if not is_distributed():
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def summed_over_ranks(value: Tensor) -> Tensor:
    """A tensor's sum over all processes, on its own device; `value` itself stays as it is."""
    if not is_distributed():
        return value
    import torch.distributed as dist

    total = value.clone()
    dist.all_reduce(total)
    return total


def _before_own_launch(devices: int, nodes: int, variables: Mapping[str, str]) -> Ranks:
    if nodes == 1:
        launcher = ALONE if devices == 1 else OWN
        return Ranks(world_size=devices, launcher=launcher)
    missing = [
        name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in variables
    ]
    if missing:
        raise LaunchError(
            f"--nodes {nodes}: no launcher started this process; start one process for each device "
            f"with srun or torchrun, or set {', '.join(missing)} on every node"
        )
    node = _number(variables, "NODE_RANK")
    return Ranks(node * devices, nodes * devices, 0, node, nodes, OWN)


def _own(variables: Mapping[str, str]) -> Ranks | None:
    """Our own launch: the first process of a node started the others of its node."""
    if "RANK" in variables or not {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"} <= variables.keys():
        return None
    world, node = _number(variables, "WORLD_SIZE"), _number(variables, "NODE_RANK")
    nodes, local = _number(variables, "OD_DETR_NODES", 1), _number(variables, "LOCAL_RANK")
    return Ranks(node * (world // max(1, nodes)) + local, world, local, node, nodes, OWN)


def _torchrun(variables: Mapping[str, str]) -> Ranks | None:
    """Torchrun, and launchers that set the same names; without LOCAL_RANK one process a node."""
    if not {"RANK", "WORLD_SIZE"} <= variables.keys():
        return None
    rank, world = _number(variables, "RANK"), _number(variables, "WORLD_SIZE")
    local = _number(variables, "LOCAL_RANK", 0)
    per_node = _number(variables, "LOCAL_WORLD_SIZE", world if "LOCAL_RANK" in variables else 1)
    node = _number(variables, "GROUP_RANK", rank // max(1, per_node))
    nodes = _number(variables, "GROUP_WORLD_SIZE", max(1, world // max(1, per_node)))
    launcher = (
        "torchrun" if "TORCHELASTIC_RUN_ID" in variables else "the launcher (RANK, WORLD_SIZE)"
    )
    return Ranks(rank, world, local, node, nodes, launcher)


def _mpi(variables: Mapping[str, str]) -> Ranks | None:
    """Open MPI's mpirun, and LSF's jsrun."""
    for prefix, local, per_node, name in (
        ("OMPI_COMM_WORLD_", "LOCAL_RANK", "LOCAL_SIZE", "mpirun"),
        ("JSM_NAMESPACE_", "LOCAL_RANK", "LOCAL_SIZE", "jsrun"),
    ):
        if prefix + "RANK" not in variables:
            continue
        rank, world = (_number(variables, prefix + part) for part in ("RANK", "SIZE"))
        each = _number(variables, prefix + per_node, world)
        nodes = max(1, world // max(1, each))
        place = _number(variables, prefix + local, rank % max(1, each))
        return Ranks(rank, world, place, rank // max(1, each), nodes, name) if world > 1 else None
    return None


def _srun(variables: Mapping[str, str]) -> Ranks | None:
    """The tasks of SLURM's srun; None in a batch job that starts its processes itself."""
    if "SLURM_JOB_ID" not in variables or "SLURM_PROCID" not in variables:
        return None
    of_step = "SLURM_STEP_NUM_TASKS" in variables
    if not of_step and variables.get("ENVIRONMENT") == "BATCH":  # the script of sbatch itself
        return None
    tasks = _number(variables, "SLURM_STEP_NUM_TASKS", _number(variables, "SLURM_NTASKS", 1))
    if tasks == 1:  # nothing to join: it may start others of its own
        return None
    nodes = _number(variables, "SLURM_STEP_NUM_NODES", _number(variables, "SLURM_NNODES", 1))
    rank, local = _number(variables, "SLURM_PROCID"), _number(variables, "SLURM_LOCALID", 0)
    return Ranks(rank, tasks, local, _number(variables, "SLURM_NODEID", 0), nodes, SRUN)


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A variable's whole number; `default` where it is not set."""
    text = variables.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError as error:
        said = "is not set" if text is None else f"is {text!r}"
        raise LaunchError(
            f"environment variable {name} {said}, where its launcher sets a number; "
            "start the processes again, or unset the launcher's variables"
        ) from error
