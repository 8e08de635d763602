"""`od-detr benchmark`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.errors import InputError
from od_detr.options.commands.shared import json_option
from od_detr.options.fields import REQUIRED, option

ROOT = Path(__file__).resolve().parents[3]
Measurement = Literal[
    "step",
    "attention",
    "matching",
    "ema",
    "loader",
    "inference",
    "memory",
    "startup",
    "growth",
    "loading",
    "saving",
]


@dataclass(frozen=True)
class BenchmarkOptions:
    """Measure this package against other packages, in a source checkout."""

    measurement: Measurement = option(REQUIRED, "What to measure.", positional=True)
    rounds: int | None = option(
        None,
        "Number of rounds; the fastest of them counts.",
        at_least=1,
        shown="depends on the measurement",
    )
    json: bool = json_option()


def benchmark(options: BenchmarkOptions) -> dict[str, Any]:
    """Measures and prints ours, the peer's and the goal."""
    if not (ROOT / "benchmarks" / f"{options.measurement}.py").is_file():
        raise InputError(
            f"benchmark {options.measurement}: only a source checkout has the benchmarks; clone "
            "the repository and install it with pip install --editable '.[dev]'"
        )
    sys.path.insert(0, str(ROOT))
    measure = importlib.import_module(f"benchmarks.{options.measurement}").measure
    figures = measure() if options.rounds is None else measure(rounds=options.rounds)
    _print(figures)
    return figures


def _print(figures: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "ours", "peer", "unit", "ratio", "goal", box=None)
    for name, figure in figures.items():
        ours, peer, ratio, goal = (
            f"{figure[key]:.4g}" for key in ("ours", "peer", "ratio", "goal")
        )
        table.add_row(name, ours, peer, figure["unit"], ratio, goal)
    Console().print(table)
