"""Whether two commits compute the same numbers, bit for bit: ``python -m benchmarks.same BASE
[HEAD]``.

A refactoring must not change a number. Each commit is checked out into a temporary worktree and
trains all six recipes on all four presets for 20 steps, small and on one CPU thread, through its
own command line. Every loss term of every step, the metrics of the last epoch, the weights and the
teacher's average must be equal to the last bit. Without HEAD the working tree is compared.
``--demo`` also compares the metrics of `od-detr demo` (about ten minutes a side).

Exit status 0: the same; 1: something differs, and is listed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("deformable-detr-plus", "dab-deformable-detr", "dino-4scale", "dino-5scale")
RECIPES = ("baseline", "qfl", "md", "md+pd", "md+ag", "od")
STEPS, IMAGES, BATCH = 20, 4, 4  # one step an epoch, so that each row of metrics.csv is one step
SMALL = [
    *("--backbone", "resnet18", "--backbone-weights", "none"),
    *("--backbone-options", '{"channels":[8,16,24,32],"layers":[1,1,1,1]}'),
    *("--hidden-dim", "32", "--encoder-layers", "1", "--decoder-layers", "2", "--queries", "12"),
    *(
        "--feedforward",
        "64",
        "--image-size",
        "64",
        "--batch-size",
        str(BATCH),
        "--workers",
        "0",
        "--device",
        "cpu",
    ),
    *("--epochs", str(STEPS), "--eval.every", str(STEPS)),
]
NOT_A_RESULT = ("seconds",)
Record = dict[str, dict[str, str]]  # by run: every figure of it as text


def main() -> int:
    """Reads the arguments and compares; returns 1 if something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("head", nargs="?", help="commit to compare (default: the working tree)")
    parser.add_argument(
        "--demo", action="store_true", help="compare the metrics of od-detr demo too"
    )
    parser.add_argument("--only", default="", help="runs whose name matches this expression")
    parser.add_argument("--record", help=argparse.SUPPRESS)  # how this file calls itself
    arguments = parser.parse_args()
    if arguments.record:
        Path(arguments.record).write_text(json.dumps(recorded(arguments.only, arguments.demo)))
        return 0
    base = recorded_at(arguments.base, arguments)
    if not base:
        parser.error(f"--only {arguments.only}: matches no run; a run is called MODEL-RECIPE")
    head = recorded_at(arguments.head, arguments)
    found = differences(base, head)
    compared = sum(map(len, base.values()))
    print("\n".join(found[:40]) if found else f"the same: {compared} figures of {len(base)} runs")
    return 1 if found else 0


def recorded_at(commit: str | None, arguments: argparse.Namespace) -> Record:
    """The record of a commit, or of the working tree."""
    with source_of(commit) as source, tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "record.json")
        environment = os.environ | {"PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            __file__,
            str(commit),
            "--record",
            str(record),
            *("--only", arguments.only),
            *(["--demo"] if arguments.demo else []),
        ]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        return json.loads(record.read_text())


@contextmanager
def source_of(commit: str | None) -> Iterator[Path]:
    """A checkout of the commit, removed again at the end."""
    if commit is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "checkout")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(checkout), commit], check=True)
        try:
            yield checkout
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)


def recorded(only: str, demo: bool) -> Record:
    """Trains every recipe on every preset with the package on the path, in the current folder."""
    import torch

    from od_detr.cli import main as od_detr

    torch.set_num_threads(1)
    draw_data(Path("data"))
    runs: Record = {}
    for model, recipe in product(MODELS, RECIPES):
        run = Path("runs", f"{model}-{recipe}")
        if not re.search(only, run.name):
            continue
        options = ["--model", model, "--recipe", recipe, "--output", str(run)]
        if od_detr(["train", "--data", "data", *options, *SMALL]):
            raise RuntimeError(f"{run}: training failed")
        runs[run.name] = figures_of(run)
    if demo:
        if od_detr(["demo", "--output", "demo"]):
            raise RuntimeError("the demo failed")
        runs["demo"] = figures_of(Path("demo", "training"))
    return runs


def figures_of(run: Path) -> dict[str, str]:
    """All numbers of metrics.csv, and digests of the weights and of the teacher."""
    import torch

    found = {}
    with (run / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            found |= {
                f"{row['epoch']} {name}": value
                for name, value in row.items()
                if name not in NOT_A_RESULT
            }
    weights = torch.load(run / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    found["weights"] = digest(weights)
    found["teacher"] = digest(
        {name: value for name, value in weights.items() if name.startswith("teacher")}
    )
    return found


def digest(tensors: dict[str, Any]) -> str:
    """Of all tensors, whatever their names: these may change, numbers may not."""
    import torch

    values = [value.cpu() for value in tensors.values() if torch.is_tensor(value)]
    parts = sorted(
        hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest() for value in values
    )
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def draw_data(folder: Path) -> None:
    """Draws a COCO data set of noise with bright rectangles; one image has no objects.

    It is drawn here and not by the package, so that both sides read the same files.
    """
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for split in ("train", "val"):
        images, annotations = [], []
        (folder / split).mkdir(parents=True)
        for image in range(IMAGES):
            pixels = random.integers(0, 90, (64, 64, 3), dtype=np.uint8)
            for label in random.integers(0, 3, image * 2):
                x, y, width, height = (int(value) for value in random.integers(8, 32, 4))
                pixels[y : y + height, x : x + width, label] = 255
                box = {
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [x, y, width, height],
                }
                annotations.append(
                    box | {"id": len(annotations), "area": width * height, "iscrowd": 0}
                )
            Image.fromarray(pixels).save(folder / split / f"{image}.png")
            images.append({"id": image, "file_name": f"{image}.png", "width": 64, "height": 64})
        categories = [
            {"id": label + 1, "name": name} for label, name in enumerate(("red", "green", "blue"))
        ]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(document))


def differences(base: Record, head: Record) -> list[str]:
    """A line for each figure that is not the same, or that only one side has."""
    lines = []
    for run in dict.fromkeys([*base, *head]):
        before, after = base.get(run, {}), head.get(run, {})
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                lines.append(f"{run}: {name}: {before.get(name)} became {after.get(name)}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
