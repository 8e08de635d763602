"""`od-detr demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from od_detr.options.commands.shared import json_option
from od_detr.options.fields import option


@dataclass(frozen=True)
class DemoOptions:
    """Train a small detector on built-in scenes in a few minutes and draw its detections."""

    output: str = option("runs/demo", "Folder for everything the demo writes.", metavar="DIR")
    seed: int = option(0, "Seed of scenes and training.", at_least=0, at_most=2**32 - 1)
    json: bool = json_option()


def demo(options: DemoOptions) -> dict[str, Any]:
    """Runs the demo."""
    from od_detr.experiments.demo import run_demo

    return run_demo(Path(options.output), options.seed)
