"""Prints what becomes of every hostile input: `python -m tests.hostile [WORD...]`.

Words choose the rows whose title holds one of them. The last column is what facebookresearch/detr,
rf-detr 1.4.1 and D-FINE made of the same input, where it was measured.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.hostile.corpus import CASES, verdict
from tests.hostile.harness import outcome
from tests.hostile.material import make_material


def main(words: list[str]) -> int:
    """Runs the rows and prints the table; status 1 if one is not as expected."""
    chosen = [case for case in CASES if not words or any(word in case.title for word in words)]
    bad, begun, kinds = 0, time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        material = make_material(Path(temporary) / "material")
        for number, case in enumerate(chosen):
            found = outcome(case, material, Path(temporary) / str(number))
            problem = verdict(case, found)
            known = " (known)" if problem and case.open_issue else ""
            bad += bool(problem) and not known
            kinds[found.kind] += 1
            print(
                f"| {case.title} | {found.kind} | {case.peers or '-'} |"
                + (f" {problem}{known}" if problem else "")
            )
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    print(
        f"{len(chosen)} inputs in {time.monotonic() - begun:.0f} s: {counts}; {bad} not as expected"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
