"""Every launcher's variables lead to the same account of who this process is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from od_detr.errors import InputError
from od_detr.ranks import Ranks, current, gathered, settled


def own(node: int, local: int, devices: int, nodes: int) -> dict[str, str]:
    names = ("NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "OD_DETR_NODES")
    return variables(names, (node, local, devices * nodes, nodes))


def torchrun(node: int, local: int, devices: int, nodes: int) -> dict[str, str]:
    names = (
        "GROUP_RANK", "LOCAL_RANK", "RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "GROUP_WORLD_SIZE",
        "TORCHELASTIC_RUN_ID",
    )  # fmt: skip
    rank, world = node * devices + local, devices * nodes
    return variables(names, (node, local, rank, devices, world, nodes, 1))


def srun(node: int, local: int, devices: int, nodes: int) -> dict[str, str]:
    names = (
        "SLURM_JOB_ID", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_PROCID", "SLURM_NTASKS",
        "SLURM_NNODES",
    )  # fmt: skip
    return variables(names, (7, node, local, node * devices + local, devices * nodes, nodes))


def srun_in_a_batch_job(node: int, local: int, devices: int, nodes: int) -> dict[str, str]:
    names = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_STEP_ID", "ENVIRONMENT")
    step = variables(names, (devices * nodes, nodes, 0, "BATCH"))
    return srun(node, local, devices, nodes) | {"SLURM_NTASKS": "16", "SLURM_NNODES": "8"} | step


def mpirun(node: int, local: int, devices: int, nodes: int) -> dict[str, str]:
    names = tuple(
        f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    )
    return variables(names, (node * devices + local, devices * nodes, local, devices))


def variables(names: tuple[str, ...], values: tuple[object, ...]) -> dict[str, str]:
    return dict(zip(names, map(str, values), strict=True))


LAUNCHERS = (own, torchrun, srun, srun_in_a_batch_job, mpirun)
BATCH_SCRIPT = {**srun(0, 0, 2, 1), "ENVIRONMENT": "BATCH"}


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(("devices", "nodes"), [(2, 1), (1, 2), (2, 2), (8, 4)])
def test_ranks_of_a_launcher_are_complete_and_disjoint(launcher, devices: int, nodes: int) -> None:
    found = [
        current(launcher(node, local, devices, nodes))
        for node in range(nodes)
        for local in range(devices)
    ]
    assert [ranks.rank for ranks in found] == list(range(devices * nodes))
    assert [ranks.is_chief for ranks in found].count(True) == 1
    for ranks in found:
        assert (ranks.world_size, ranks.nodes, ranks.devices) == (devices * nodes, nodes, devices)
        assert ranks.rank == ranks.node * devices + ranks.local_rank
        assert ranks.is_launched


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_launchers_numbers_are_the_defaults_and_may_be_repeated(launcher) -> None:
    environment = launcher(1, 1, 2, 3) | {"MASTER_ADDR": "first"}
    expected = current(environment)
    for devices, nodes in ((None, None), (2, None), (None, 3), (2, 3)):
        assert settled(devices, nodes, environment) == expected


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("devices", "nodes", "named"),
    [(1, None, "--devices 1"), (4, None, "--devices 4"), (None, 1, "--nodes 1")],
)
def test_other_numbers_are_refused_in_one_line(launcher, devices, nodes, named: str) -> None:
    with pytest.raises(InputError, match=named) as refused:
        settled(devices, nodes, launcher(0, 1, 2, 2))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        BATCH_SCRIPT,
        srun(0, 0, 1, 1),
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"},
        mpirun(0, 0, 1, 1),
    ],
)
def test_a_process_without_others_starts_its_own(environment: dict[str, str]) -> None:
    """Alone, as a batch script, as a single task, and in a shell inside an allocation."""
    assert current(environment) == Ranks() == settled(None, None, environment)
    ranks = settled(2, None, environment)
    assert (ranks.rank, ranks.world_size, ranks.launcher) == (0, 2, "own launch")


def test_what_own_launch_starts_in_a_batch_job_is_not_taken_for_a_task_of_srun() -> None:
    ranks = current(BATCH_SCRIPT | own(0, 1, 2, 1))
    assert (ranks.rank, ranks.launcher) == (1, "own launch")


def test_torchrun_inside_a_slurm_job_is_torchrun() -> None:
    assert current(srun(0, 0, 1, 2) | torchrun(0, 1, 2, 2)).launcher == "torchrun"


def test_rank_and_world_size_alone_mean_one_process_a_node() -> None:
    assert current({"RANK": "2", "WORLD_SIZE": "4"}).node == 2
    assert current({"RANK": "2", "WORLD_SIZE": "4"}).nodes == 4


@pytest.mark.parametrize("launcher", [mpirun, lambda *place: {"RANK": "2", "WORLD_SIZE": "4"}])
def test_several_nodes_need_to_know_where_rank_0_is(launcher) -> None:
    """Else each node waits for rank 0 on its own machine."""
    environment = launcher(1, 0, 2, 2)
    for unknown in ({}, {"MASTER_ADDR": ""}):
        with pytest.raises(InputError, match=r"nothing says where rank 0 is; set MASTER_ADDR"):
            settled(None, None, environment | unknown)
    for known in ({"MASTER_ADDR": "first"}, {"SLURM_NODELIST": "first"}):
        assert settled(None, None, environment | known).rank == 2


def test_several_nodes_need_a_launcher_or_the_node() -> None:
    with pytest.raises(InputError, match=r"--nodes 2: .*NODE_RANK"):
        settled(2, 2, {})
    place = {"NODE_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "29500"}
    ranks = settled(2, 2, place)
    assert (ranks.rank, ranks.world_size, ranks.node, ranks.nodes) == (2, 4, 1, 2)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        (torchrun(0, 0, 2, 1) | {"RANK": "one"}, "RANK is 'one'"),
        (torchrun(0, 0, 2, 1) | {"RANK": "2"}, "rank 2 of 2"),
        (srun(0, 0, 1, 2) | {"SLURM_NTASKS": "3"}, "rank 0 of 3"),
    ],
)
def test_numbers_that_cannot_be_are_refused(environment: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        current(environment)


def test_a_single_process_agrees_with_itself() -> None:
    assert gathered("here") == ["here"]


def test_asking_for_ranks_does_not_import_torch() -> None:
    code = (
        "import sys, od_detr.ranks as r; r.current(); r.gathered(1); "
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
