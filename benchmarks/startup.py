"""How long it takes to be of use: importing the package against importing torch, and `od-detr
--help`.

Each is a fresh process, timed on the wall. What they share is in the file system's cache after an
uncounted round.
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.timing import Figure, cost

COMMANDS = {
    "ours": ["-c", "import od_detr"],
    "peer": ["-c", "import torch"],
    "help": ["-c", "import sys; from od_detr.cli import main; sys.exit(main(['--help']))"],
    "python": ["-c", "pass"],
}


def measure(rounds: int = 5) -> dict[str, Figure]:
    """The figures of `od-detr benchmark startup`.

    The help's peer is the bare interpreter, its ratio is in seconds.
    """
    seconds = dict.fromkeys(COMMANDS, float("inf"))
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return {
        "import_over_torch": cost(seconds["ours"], seconds["peer"], 1.3),
        "help_seconds": cost(seconds["help"], seconds["python"], 0.5) | {"ratio": seconds["help"]},
    }


if __name__ == "__main__":
    print(measure())
