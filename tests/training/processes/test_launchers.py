"""With every launcher, the processes share the data, evaluate exactly and leave one run.

Launchers are simulated on this machine: one torchrun per node, SLURM by its variables.
"""

from __future__ import annotations

import csv
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.forked import start
from tests.subset import first_images

from od_detr.inference.evaluate import evaluate_run

TINY = [
    "--device", "cpu", "--batch-size", "1", "--epochs", "2", "--eval.every", "2", "--workers", "0",
    "--augment", "none", "--image-size", "64", "--hidden-dim", "32", "--encoder-layers", "1",
    "--decoder-layers", "2", "--queries", "20", "--feedforward", "64", "--num-levels", "3",
    "--backbone", "resnet18", "--backbone-weights", "none", "--opt.lr", "2e-3",
    "--backbone-options", '{"channels":[8,16,24,32],"layers":[1,1,1,1]}',
]  # fmt: skip
SPY = """
import atexit, json, os, signal, sys
from pathlib import Path
from od_detr.cli import main
from od_detr.data.dataset import CocoDataset
from od_detr.ranks import current

folder, seen, get = Path(sys.argv[1]), [], CocoDataset.__getitem__
victim, cause = os.environ.get("VICTIM"), os.environ.get("CAUSE")

def spy(self, index):
    if self.annotations.file.name == "train.json":
        seen.append(index)
        if str(current().rank) == victim and index[0] == 1:
            if cause == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            from od_detr.errors import InputError
            raise InputError("images/1.png: cannot be decoded")
    return get(self, index)

CocoDataset.__getitem__ = spy
status = main(sys.argv[2:])
(folder / f"rank-{current().rank}.json").write_text(json.dumps([status, seen]))
if status:
    sys.exit(status)
"""
Command = tuple[list[str], dict[str, str]]


def own(script: list[str]) -> list[Command]:
    return [([*script, "--devices", "2"], {})]


def own_nodes(nodes: int, processes: int) -> Callable[[list[str]], list[Command]]:
    def commands(script: list[str]) -> list[Command]:
        options = ["--devices", str(processes), "--nodes", str(nodes)]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return [([*script, *options], place | {"NODE_RANK": str(n)}) for n in range(nodes)]

    return commands


def batch_job(script: list[str]) -> list[Command]:
    """The script of a SLURM batch job that does not use srun."""
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_PROCID": "0"}
    return [([*script, "--devices", "2"], job | {"SLURM_LOCALID": "0", "ENVIRONMENT": "BATCH"})]


def srun(script: list[str]) -> list[Command]:
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    job |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    tasks = ({"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)} for task in range(2))
    return [(script, job | task) for task in tasks]


def torchrun(nodes: int, processes: int) -> Callable[[list[str]], list[Command]]:
    def commands(script: list[str]) -> list[Command]:
        place = ["--nnodes", str(nodes), "--nproc-per-node", str(processes)]
        place += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        place += ["--run-path", "--start-method", "fork"]
        torchrun = ["-m", "torch.distributed.run", *place]
        options = ["--devices", str(processes), "--nodes", str(nodes)] if processes > 1 else []
        return [([*torchrun, "--node-rank", str(n), *script, *options], {}) for n in range(nodes)]

    return commands


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launched(
    commands: list[Command], launches: bool = False, **extra: str
) -> tuple[list[int | None], str, str]:
    """Exit statuses of all commands, and what they print together; `launches` see `start`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    kept |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | extra
    running = [start(command, kept | variables, launches) for command, variables in commands]
    statuses, out, errors = zip(*(each.ended(300) for each in running), strict=True)
    return list(statuses), "".join(out), "".join(errors)


@pytest.fixture
def script(data_of_7: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "spy.py").write_text(SPY)
    paths = ["--data", str(data_of_7), "--output", str(tmp_path / "run")]
    return [str(tmp_path / "spy.py"), str(tmp_path), "train", *paths, *TINY]


@pytest.fixture
def data_of_7(scenes: Path, tmp_path: Path) -> Path:
    """Seven images, which neither two nor four processes share evenly."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(scenes / "images" / "train")
    content = first_images(scenes / "train.json", 7)
    for split in ("train", "val"):
        (data / f"{split}.json").write_text(json.dumps(content))
    return data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "world"),
    [
        pytest.param(own, 2, id="own launch"),
        pytest.param(own_nodes(2, 1), 2, id="own launch 2x1"),
        pytest.param(own_nodes(2, 2), 4, id="own launch 2x2"),
        pytest.param(batch_job, 2, id="batch job"),
        pytest.param(srun, 2, id="srun"),
        pytest.param(torchrun(2, 1), 2, id="torchrun 2x1"),
        pytest.param(torchrun(2, 2), 4, id="torchrun 2x2"),
    ],
)
def test_processes_share_the_data_and_evaluate_it_exactly(
    launcher, world: int, script: list[str], data_of_7: Path, tmp_path: Path
) -> None:
    statuses, out, errors = launched(launcher(script), launches=launcher is own)
    assert not any(statuses), errors[-3000:]
    assert out.count("best: ") == out.count("train: COCO data") == 1
    notes = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(world)]
    for epoch in (0, 1):
        shares = [{place for when, place, *_ in seen if when == epoch} for _, seen in notes]
        together = set().union(*shares)
        assert sum(map(len, shares)) == len(together) == 7 // world * world
        assert together <= set(range(7))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    alone = evaluate_run(tmp_path / "run", data_of_7, weights="online", batch_size=3)
    assert alone["AP"] == pytest.approx(float(last["val/AP"]), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "cause", "named", "launches"),
    [
        ("1", "killed", r"rank 1 (node 0, local rank 1) was killed (SIGKILL)", False),
        ("1", "input", r"rank 1 (node 0, local rank 1) ended with InputError: images/1.png", False),
        ("0", "killed", r"rank 0 (node 0, local rank 0) was killed", True),
    ],
)
def test_a_lost_process_is_named_in_one_line(
    victim: str, cause: str, named: str, launches: bool, script: list[str]
) -> None:
    """All end within the time limit of this file's commands."""
    statuses, _, errors = launched(own(script), launches, VICTIM=victim, CAUSE=cause)
    assert statuses[0] in (1, -9)
    lines = [line for line in errors.splitlines() if "rank" in line]
    assert len(lines) == 1, errors[-3000:]
    assert named in lines[0], errors[-3000:]
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_launcher_that_contradicts_the_options_is_refused_once(
    script: list[str], tmp_path: Path
) -> None:
    statuses, _, errors = launched(srun([*script, "--devices", "1"]))
    assert statuses == [2, 2]
    assert errors.count("\n") == errors.count("error: --devices 1: ") == 1
    assert not (tmp_path / "run").exists()
