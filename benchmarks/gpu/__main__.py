"""``python -m benchmarks.gpu --output DIR [--minutes 8] [--parts laws,times,evidence]``."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import evidence
from benchmarks.gpu.runner import LOG, RESULTS, Check, recorded, run_part, work
from benchmarks.gpu.scale import chosen
from benchmarks.gpu.table import table

PARTS = {"laws": 0.3, "times": 0.35, "evidence": 0.35}  # share of the minutes
SUMMARY, TABLE = "gpu.json", "table.txt"
PACKAGES = ("torch", "torchvision", "triton", "timm", "lightning", "transformers", "numpy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen parts, or one part's checks in a worker process; returns the exit status."""
    given = parse(arguments)
    if given.worker:
        checks = checks_of(given.worker, given.output, given.until)
        work(checks, given.checks, chosen(given.device, given.quick), given.output, given.until)
        return 0
    if given.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: no GPU is here; give --device cpu --quick to try everything small")
        return 2
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / RESULTS).unlink(missing_ok=True)  # of an earlier run
    return run(given)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with the parts in their order."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for JSON, table and log")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything together")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in this order")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="everything in miniature")
    parser.add_argument("--worker", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--checks", nargs="*", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0.0, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    given.parts = [part for part in PARTS if part in given.parts.split(",")]
    return given


def checks_of(part: str, output: Path, until: float) -> Sequence[Check]:
    """The checks of a part. Each part is imported where it runs, so that one that cannot be leaves
    the others.
    """
    if part == "evidence":
        return evidence.checks(output, until)
    from importlib import import_module

    return import_module(f"benchmarks.gpu.{part}").CHECKS


def run(given: argparse.Namespace) -> int:
    """Runs the parts one after the other; 0 if every check ended and every law holds."""
    scale = chosen(given.device, given.quick)
    facts = environment(given.device)
    print(json.dumps(facts), flush=True)
    print("installs nothing", flush=True)
    drawing = evidence.draw(given.output, scale) if "evidence" in given.parts else None
    end, shares = time.time() + 60 * given.minutes, sum(PARTS[part] for part in given.parts)
    more = ["--device", given.device, *["--quick"] * given.quick]
    for part in given.parts:
        # Time that an earlier part left over is shared by the later ones.
        until = time.time() + (end - time.time()) * PARTS[part] / shares
        shares -= PARTS[part]
        try:
            checks = checks_of(part, given.output, until)
            names = [check.name for check in checks]
            if part == "evidence":  # does nothing but start processes of its own
                work(checks, names, scale, given.output, until)
            else:
                run_part(part, names, more, given.output, until)
        except Exception as error:  # the other parts go on
            print(f"{part}: {type(error).__name__}: {error}", flush=True)
        (given.output / SUMMARY).write_text(
            json.dumps({"environment": facts, "checks": recorded(given.output)}, indent=1)
        )
        print(f"{part}: done, {end - time.time():.0f} s left", flush=True)
    if drawing is not None:
        drawing.kill()
        drawing.wait()
        shutil.rmtree(evidence.scenes_folder(given.output), ignore_errors=True)
    found = recorded(given.output)
    text = table(found)
    (given.output / TABLE).write_text(text)
    print(text, flush=True)
    print(f"everything: {given.output / SUMMARY}; log: {given.output / LOG}")
    return (
        0
        if all(not each.get("failed") and each.get("holds", True) for each in found.values())
        else 1
    )


def environment(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    facts: dict[str, Any] = {"python": platform.python_version(), "device": device}
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts["gpu"] = properties.name
        facts["memory_GiB"] = round(properties.total_memory / 2**30, 1)
        facts["multiprocessors"] = properties.multi_processor_count
    return facts


if __name__ == "__main__":
    sys.exit(main())
