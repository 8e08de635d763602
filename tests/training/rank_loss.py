"""Kills each rank of a training in the forward pass, the backward pass, evaluation and a save.

    python -m tests.training.rank_loss [--devices 4] [--directory DIR]

Prints for each case how long the others took to end, and the line that they printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.forked import start

from od_detr.checkpoints import load_checkpoint
from od_detr.data.scenes import render_scenes
from od_detr.errors import InputError
from od_detr.run_files import RunFiles

POINTS = ("forward", "backward", "evaluation", "save")
TINY = [
    *("--device", "cpu", "--batch-size", "1", "--epochs", "3", "--workers", "0"),
    *("--augment", "none", "--image-size", "64", "--hidden-dim", "32", "--encoder-layers", "1"),
    *("--decoder-layers", "1", "--queries", "12", "--feedforward", "32", "--num-levels", "3"),
    *("--backbone", "resnet18", "--backbone-weights", "none"),
    *("--backbone-options", '{"channels":[8,16,24,32],"layers":[1,1,1,1]}'),
]
# The victim dies at its point as soon as there is a checkpoint that it could spoil.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from od_detr import checkpoints
from od_detr.cli import main
from od_detr.evaluation.scoring import Scorer
from od_detr.ranks import current
from od_detr.training import loop
from od_detr.training.descent import Descent
from od_detr.training.recipe import Recipe

run, victim, point = Path(os.environ["RUN"]), int(os.environ["VICTIM"]), os.environ["POINT"]
IMAGES = {"forward": (Recipe, "losses"), "backward": (Descent, "backward"),
          "evaluation": (Scorer, "add"),
          "save": (loop, "contents_of") if victim else (checkpoints._Hashing, "write")}
where, name = IMAGES[point]
original = getattr(where, name)

def die():
    (run / "killed").write_text(str(time.time()))
    os.kill(os.getpid(), signal.SIGKILL)

def spy(self, *arguments, **named):
    if current().rank == victim and (run / "last.ckpt").exists():
        if point == "backward":
            arguments[0].register_hook(lambda gradient: die())
        else:
            die()
    return original(self, *arguments, **named)

setattr(where, name, spy)
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Outcome:
    """How a training ended of which one rank was killed.

    Attributes:
        seconds: from the kill until the last process was gone.
        lines: what was printed about a rank.
        traceback: whether a traceback was printed.
        intact: whether the newest checkpoint was whole.
    """

    seconds: float
    lines: list[str]
    traceback: bool
    intact: bool

    def names(self, victim: int) -> bool:
        """Whether one line, and no more, names the victim and that it was killed."""
        return len(self.lines) == 1 and all(
            part in self.lines[0] for part in (f"rank {victim} ", "kill")
        )


def lose(victim: int, point: str, devices: int, data: Path, run: Path, limit: int = 600) -> Outcome:
    """Trains with one process a device, and kills one of them.

    Raises:
        TimeoutError: some process is left after `limit` seconds.
        RuntimeError: the training did not come to that point.
    """
    place = {"RUN": str(run), "VICTIM": str(victim), "POINT": point}
    script = run.with_suffix(".py")
    script.write_text(SCRIPT)
    paths = ["--data", str(data), "--output", str(run), "--devices", str(devices)]
    variables = os.environ | place | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    # Torch reads as it is imported what it may print. Where rank 0 is lost, the others may nothing.
    launches = victim == 0
    training = start([str(script), "train", *paths, *TINY], variables, launches)
    _, _, errors = training.ended(limit)
    if not (run / "killed").exists():
        raise RuntimeError(f"rank {victim} was not killed: {errors}")
    seconds = time.time() - float((run / "killed").read_text())
    lines = [line for line in errors.splitlines() if "rank" in line]
    try:
        intact = not load_checkpoint(RunFiles(run)).notice
    except InputError:
        intact = False
    return Outcome(seconds, lines, "Traceback" in errors, intact)


def main() -> int:
    """Runs all cases; 1 if one of them is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--directory", type=Path, default=None)
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory(dir=given.directory) as parent:
        data = Path(parent, "data")
        render_scenes(data, 2 * given.devices, given.devices, 64, seed=0)
        for point in POINTS:
            for victim in range(given.devices):
                run = Path(parent, f"{point}-{victim}")
                found = lose(victim, point, given.devices, data, run)
                sound = found.names(victim) and found.intact and not found.traceback
                faults += not (sound and found.seconds < 60)
                case = {"point": point, "rank": victim, "sound": sound}
                seconds = round(found.seconds, 1)
                print(json.dumps(case | {"seconds": seconds, "said": found.lines}), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
