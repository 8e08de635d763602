"""Two processes train as one, even where one of them never sees an object."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tests.forked import start
from tests.subset import first_images

from od_detr.data.loading.batching import BatchSampler
from od_detr.inference.evaluate import evaluate_run
from od_detr.options import TrainOptions

pytestmark = pytest.mark.slow  # every test starts processes

ARCHITECTURES = ("deformable-detr-plus", "dab-deformable-detr", "dino-4scale")
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from od_detr.options import TrainOptions
from od_detr.training.fit import fit
from od_detr.training.loop import Loop
from od_detr.training.recipe import Recipe

torch.set_num_threads(1)
folder, counts, losses = Path(sys.argv[1]), [], Recipe.losses

def counted(self, student, batch, *distil):
    counts.append(len(batch.targets))
    return losses(self, student, batch, *distil)

def finished(self):
    counts.clear()  # the estimate before the first step computes losses, too
    run(self)
    network = self.training.network
    saved = {name: value for name, value in network.state_dict().items() if torch.is_tensor(value)}
    trained = [name for name, parameter in network.named_parameters()]
    place = f"{self.options.model}-{self.training.fabric.global_rank}"
    torch.save({name: saved[name] for name in trained}, folder / f"{place}.pt")
    (folder / f"{place}.json").write_text(json.dumps(counts))
    counts.clear()

run = Loop.run
Recipe.losses, Loop.run = counted, finished
for values in json.loads((folder / "options.json").read_text()):
    fit(TrainOptions(**values))
"""


def launched(command: list[str]) -> tuple[int | None, str, str]:
    """A process of its own that may not hang, with Lightning's variables of no earlier run."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LOCAL_RANK", "WORLD_SIZE")
    }
    return start(command, environment).ended(300)


def test_a_rank_without_targets_trains_with_every_host(
    options: Callable[..., TrainOptions], scenes: Path, tmp_path: Path
) -> None:
    places = BatchSampler(6, 1, seed=0, rank=1, world_size=2, drop_last=True)
    barren = {draw.place for batch in places for draw in batch}
    assert len(barren) == 3
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(scenes / "images")
    for split in ("train", "val"):
        content = json.loads((scenes / f"{split}.json").read_text())
        content["images"] = content["images"][: 6 if split == "train" else 3]
        kept = {
            image["id"]
            for place, image in enumerate(content["images"])
            if split == "val" or place not in barren
        }
        content["annotations"] = [
            entry for entry in content["annotations"] if entry["image_id"] in kept
        ]
        (data / f"{split}.json").write_text(json.dumps(content))
    runs = []
    for host in ARCHITECTURES:
        chosen = asdict(
            options(
                data=str(data), model=host, recipe="od", epochs=1, batch_size=1, devices=2, seed=0
            )
        )
        nested = {
            key
            for key, value in chosen.items()
            if isinstance(value, dict) and key != "backbone_options"
        }
        plain = {key: value for key, value in chosen.items() if key not in nested}
        levels = None if host == "dino-4scale" else chosen["num_levels"]
        runs.append(plain | {"output": str(tmp_path / host), "num_levels": levels})
    (tmp_path / "options.json").write_text(json.dumps(runs))
    (tmp_path / "train.py").write_text(SCRIPT)

    status, _, errors = launched([str(tmp_path / "train.py"), str(tmp_path)])

    assert status == 0, errors[-3000:]
    for host in ARCHITECTURES:
        seen = [json.loads((tmp_path / f"{host}-{rank}.json").read_text()) for rank in (0, 1)]
        assert len(seen[0]) == 3, host
        assert min(seen[0]) > 0, host
        assert seen[1] == [0, 0, 0], host
        weights = [torch.load(tmp_path / f"{host}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), host
        assert all(value.isfinite().all() for value in weights[0].values()), host
        with (tmp_path / host / "metrics.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert float(row["train/loss"]) > 0
        assert row["step"] == "3"


@pytest.fixture(scope="module")
def trained_by_two(
    scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, str]:
    """Data with an odd number of images, a run of two processes on it, and its output."""
    data, run = tmp_path_factory.mktemp("odd") / "data", tmp_path_factory.mktemp("two") / "run"
    data.mkdir()
    (data / "images").symlink_to(scenes / "images" / "train")
    content = first_images(scenes / "train.json", 7)
    for split in ("train", "val"):
        (data / f"{split}.json").write_text(json.dumps(content))
    command = [
        "-m",
        "od_detr",
        "train",
        "--data",
        str(data),
        "--output",
        str(run),
        "--devices",
        "2",
        "--device",
        "cpu",
        "--batch-size",
        "2",
        "--epochs",
        "24",
        "--eval.every",
        "12",
        "--opt.lr",
        "2e-3",
        "--augment",
        "none",
        "--image-size",
        "64",
        "--hidden-dim",
        "32",
        "--encoder-layers",
        "1",
        "--decoder-layers",
        "2",
        "--queries",
        "20",
        "--feedforward",
        "64",
        "--num-levels",
        "3",
        "--dropout",
        "0",
        "--backbone",
        "resnet18",
        "--backbone-weights",
        "none",
        "--workers",
        "0",
        # Fmt: skip.
        "--backbone-options",
        '{"channels":[8,16,24,32],"layers":[1,1,1,1]}',
        "--json",
    ]
    status, output, errors = launched(command)
    assert (status, errors) == (0, "")
    return data, run, output


def test_two_processes_speak_with_one_voice(trained_by_two: tuple[Path, Path, str]) -> None:
    _, run, told = trained_by_two
    assert told.count("best: ") == 1
    assert told.count("\n{") == 1
    assert json.loads(told.splitlines()[-1])["run"] == str(run)


@pytest.mark.parametrize(
    ("weights", "column"), [("online", "val/AP"), ("teacher", "val/teacher/AP")]
)
def test_what_two_processes_evaluate_equals_what_one_does(
    weights: str, column: str, trained_by_two: tuple[Path, Path, str]
) -> None:
    data, run, _ = trained_by_two
    with (run / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    alone = evaluate_run(run, data, weights=weights, batch_size=3)
    assert alone["AP"] == pytest.approx(float(last[column]), abs=1e-9)
    assert alone["AP50"] > 0
