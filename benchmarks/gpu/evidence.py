"""Part three: Table 2's recipes trained side by side on one GPU, on the built-in scenes.

Each recipe is a process of its own that runs `od-detr train`. All take as many steps as the slowest
can take in the time there is: each process times its own step while the others do the same, and all
read what the others found.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.runner import ROOT, Check, Figures, search_path
from benchmarks.gpu.scale import Scale, arithmetic, chosen, synchronise
from benchmarks.step import make_batch, training_step

SLACK = 1.3  # validation, loading and saving, as a multiple of the steps' time
COLUMNS = ("epoch", "step", "seconds", "val/AP", "val/AP50", "val/teacher/AP")
VALIDATIONS = 5
CALIBRATION_STEPS = 12


def scenes_folder(output: Path) -> Path:
    """Where the scenes are drawn while other parts run; below the system's temporary folder."""
    return Path(tempfile.gettempdir(), "od-detr-gpu", output.resolve().name or "run")


def draw(output: Path, scale: Scale) -> subprocess.Popen:
    """Begins to draw the scenes, in place of all that an earlier run left."""
    folder = scenes_folder(output)
    train, val, size = scale.scenes
    program = (
        "from pathlib import Path; from od_detr.data.scenes import render_scenes; "
        f"render_scenes(Path({str(folder / 'scenes')!r}), {train}, {val}, {size})"
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": search_path(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", program], env=environment)


def table2(scale: Scale, output: Path, until: float) -> Figures:
    """AP of each recipe at each validation, with its step and its seconds of training."""
    folder = scenes_folder(output)
    _await(folder / "scenes" / "val.json", until)
    for file in folder.glob("*.json"):
        file.unlink()
    processes = {recipe: _start(scale, recipe, folder, until) for recipe in scale.recipes}
    for process in processes.values():
        _finish(process, until)
    figures: Figures = {"holds": True}
    for recipe, process in processes.items():
        rows = _rows(folder / recipe / "metrics.csv")
        figures[recipe] = rows or _last_words(folder / f"{recipe}.log")
        figures["holds"] &= bool(rows) and process.returncode == 0
        print(f"{recipe}: exit status {process.returncode}", flush=True)
    return figures


def _await(file: Path, until: float) -> None:
    while not file.exists():
        if time.time() > until:
            raise TimeoutError(f"{file} was not drawn in time")
        time.sleep(0.2)


def _start(scale: Scale, recipe: str, folder: Path, until: float) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.gpu.evidence", "--recipe", recipe]
    command += ["--folder", str(folder), "--until", str(until), "--device", scale.device]
    command += ["--quick"] * scale.quick
    environment = os.environ | {"PYTHONPATH": search_path(), "OMP_NUM_THREADS": "1"}
    with (folder / f"{recipe}.log").open("w") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def _finish(process: subprocess.Popen, until: float) -> None:
    """Waits; at the end of the time asks the run to save and stop, then ends it."""
    for grace, number in ((0.0, signal.SIGTERM), (10.0, signal.SIGKILL)):
        try:
            process.wait(max(0.1, until + grace - time.time()))
            return
        except subprocess.TimeoutExpired:
            process.send_signal(number)
    process.wait()


def _rows(file: Path) -> list[dict[str, float]]:
    """The epochs that were validated."""
    if not file.exists():
        return []
    with file.open() as opened:
        rows = [row for row in csv.DictReader(opened) if row.get("val/AP")]
    return [{name: round(float(row[name]), 4) for name in COLUMNS if row.get(name)} for row in rows]


def _last_words(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-15:]


def run_recipe(scale: Scale, recipe: str, folder: Path, until: float) -> int:
    """What a recipe's process does."""
    seconds = time_a_step(scale, recipe)
    (folder / f"{recipe}.json").write_text(json.dumps(seconds))
    slowest = _slowest(scale, folder, min(until, time.time() + 60)) or seconds
    train, _, size = scale.scenes
    steps_an_epoch = train // int(scale.evidence["batch-size"])
    epochs = int((until - time.time() - 15) / (slowest * SLACK * steps_an_epoch))
    epochs = max(2, min(scale.most_epochs, epochs))
    print(f"{recipe}: {seconds:.4f} s a step, slowest {slowest:.4f}, {epochs} epochs", flush=True)
    flags: dict[str, Any] = {
        "data": folder / "scenes",
        "output": folder / recipe,
        "recipe": recipe,
        "epochs": epochs,
        "image-size": size,
        "augment": "flip",
        "backbone-weights": "none",
        "dropout": 0.0,
        "device": scale.device,
        "eval.every": max(1, epochs // VALIDATIONS),
        **scale.evidence,
    }
    from od_detr.cli import main

    return main(["train", *itertools.chain(*((f"--{k}", str(v)) for k, v in flags.items()))])


def time_a_step(scale: Scale, recipe: Any) -> float:
    """Seconds of a step of this size, while the other recipes' processes do the same."""
    from od_detr.detectors import build_detector

    evidence, (_, _, size) = scale.evidence, scale.scenes
    names = ("hidden-dim", "encoder-layers", "decoder-layers", "queries", "feedforward")
    sizes = {name.replace("-", "_"): evidence[name] for name in names}
    backbone = json.loads(evidence.get("backbone-options", "null"))
    detector = build_detector(
        "deformable-detr-plus",
        5,
        backbone=evidence["backbone"],
        backbone_options=backbone,
        dropout=0.0,
        **sizes,
    ).to(scale.device)
    batch = make_batch(int(evidence["batch-size"]), size, 5).to(scale.device)
    step = training_step(detector, batch, recipe)
    count = 1 if scale.quick else CALIBRATION_STEPS
    with arithmetic("bf16" if evidence["precision"] == "bf16" else "tf32", scale.device):
        for _ in range(1 if scale.quick else 5):
            step()
        synchronise(scale.device)
        start = time.perf_counter()
        for _ in range(count):
            step()
        synchronise(scale.device)
    return (time.perf_counter() - start) / count


def _slowest(scale: Scale, folder: Path, until: float) -> float | None:
    """The longest step of all recipes; None if one of them did not tell."""
    files = [folder / f"{recipe}.json" for recipe in scale.recipes]
    while time.time() < until:
        texts = [file.read_text() if file.exists() else "" for file in files]
        if all(texts):
            return max(map(float, texts))
        time.sleep(0.1)
    return None


def checks(output: Path, until: float) -> tuple[Check, ...]:
    """The only one."""
    return (Check("table 2 on scenes", lambda scale: table2(scale, output, until - 15), 30),)


def main() -> int:
    """Runs one recipe."""
    parser = argparse.ArgumentParser(
        description="One recipe's training; started by the whole part."
    )
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    return run_recipe(chosen(given.device, given.quick), given.recipe, given.folder, given.until)


if __name__ == "__main__":
    sys.exit(main())
