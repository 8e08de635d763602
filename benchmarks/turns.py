"""What a commit costs in a training step: ``python -m benchmarks.turns BASE [HEAD] [--steps N]``.

Each commit is checked out into a temporary worktree. One process each of BASE and HEAD, and a
second one of HEAD, take turns in random order with the step of the demo's detector (16 images of
128 px, one CPU thread). The ratio of the two equal processes is the error of the measurement.
Without HEAD the working tree is measured.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.same import source_of

RECIPES = ("baseline", "qfl", "od")
# Runs in a worktree, with that commit's code: a recipe on each line in, its seconds out.
WORKER = """
import copy, sys, time
import torch
from benchmarks.step import MODEL, make_batch, small_detector, training_step
torch.set_num_threads(1)
detector, batch, steps = small_detector(MODEL), make_batch(16, 128, 8), {}
for line in sys.stdin:
    recipe = line.strip()
    if recipe not in steps:
        steps[recipe] = training_step(copy.deepcopy(detector), batch, recipe, MODEL)
        steps[recipe]()
    start = time.process_time()
    steps[recipe]()
    print(time.process_time() - start, flush=True)
"""
Worker = subprocess.Popen[str]


def main() -> None:
    """Prints, for each recipe, the seconds of BASE and the median ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("head", nargs="?", help="commit to measure (default: the working tree)")
    parser.add_argument("--steps", type=int, default=50, help="steps of each recipe (default: 50)")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        base, head = (
            stack.enter_context(source_of(commit)) for commit in (arguments.base, arguments.head)
        )
        workers = {
            name: stack.enter_context(worker(place))
            for name, place in (("base", base), ("head", head), ("again", head))
        }
        for recipe in RECIPES:
            seconds = in_turns(workers, recipe, arguments.steps)
            print(
                f"{recipe:<9} base {median(seconds['base']):.3f} s, "
                f"head / base {ratio(seconds['head'], seconds['base']):.3f}, "
                f"head / head {ratio(seconds['again'], seconds['head']):.3f}",
                flush=True,
            )


@contextmanager
def worker(source: Path) -> Iterator[Worker]:
    """A process that steps with the code in a folder."""
    paths = os.pathsep.join([str(source / "src"), str(source)])
    with subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=source,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def in_turns(workers: Mapping[str, Worker], recipe: str, steps: int) -> dict[str, list[float]]:
    """Processor seconds of each step of each process."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(steps):
        for name in random.sample(list(workers), len(workers)):
            seconds[name].append(step(workers[name], recipe))
    return seconds


def step(process: Worker, recipe: str) -> float:
    """Processor seconds of one step."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{recipe}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the step of {recipe} failed; its error is above")
    return float(line)


def ratio(seconds: list[float], others: list[float]) -> float:
    """Median ratio of steps that were taken one after the other."""
    return median(ours / theirs for ours, theirs in zip(seconds, others, strict=True))


if __name__ == "__main__":
    main()
