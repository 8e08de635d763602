"""How the cost of a training step grows with image size, batch, queries and targets, distilled and
plain.

One of the four is varied while the others stay at 320 px, 2 images, 300 queries and 7 targets an
image. `python -m benchmarks.growth FILE` draws the curves.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.step import TARGETS, large_detector, make_batch, training_step
from benchmarks.timing import Figure, cost, interleaved

USUAL = {"image_size": 320, "batch": 2, "queries": 300, "targets": TARGETS}
AXES = {
    "image_size": (160, 320, 480, 640),
    "batch": (1, 2, 4),
    "queries": (100, 300, 900),
    "targets": (1, 7, 30, 100),
}
RECIPES = ("baseline", "od")
Curves = dict[str, dict[str, list[float]]]  # seconds by axis and recipe, along AXES


def measure(
    rounds: int = 1, axes: Mapping[str, Sequence[int]] = AXES, **sizes: Any
) -> dict[str, Figure]:
    """The figures of `od-detr benchmark growth`: by how much a step grows from an axis's first
    point to its last.

    The goal is the growth of what varies, in pixels for image sizes: nothing should cost more than
    in proportion.
    """
    return figures(curves(rounds, axes, **sizes), axes)


def curves(rounds: int = 1, axes: Mapping[str, Sequence[int]] = AXES, **sizes: Any) -> Curves:
    """Least seconds of a step at each point; the candidates of an axis take turns."""
    found: Curves = {}
    for axis, points in axes.items():
        steps = {
            (recipe, point): _step(recipe, {**USUAL, axis: point}, sizes)
            for point in points
            for recipe in RECIPES
        }
        seconds = interleaved(steps, rounds)
        found[axis] = {recipe: [seconds[recipe, point] for point in points] for recipe in RECIPES}
    return found


def _step(recipe: str, usual: Mapping[str, int], sizes: Mapping[str, Any]) -> Any:
    detector = large_detector(**{"queries": usual["queries"], **sizes})
    return training_step(
        detector, make_batch(usual["batch"], usual["image_size"], 80, usual["targets"]), recipe
    )


def figures(found: Curves, axes: Mapping[str, Sequence[int]]) -> dict[str, Figure]:
    """Last point over first, and by how much the axis itself has grown."""
    return {
        f"{axis}_{recipe}": cost(seconds[-1], seconds[0], proportion(axis, axes[axis])[-1])
        for axis, recipes in found.items()
        for recipe, seconds in recipes.items()
    }


def proportion(axis: str, points: Sequence[int]) -> list[float]:
    """Growth of what an axis counts since its first point.

    The side of an image counts as pixels.
    """
    power = 2 if axis == "image_size" else 1
    return [(point / points[0]) ** power for point in points]


def draw(found: Curves, axes: Mapping[str, Sequence[int]], output: Path) -> None:
    """A plot an axis, logarithmic both ways; dotted: growth in proportion."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(11, 3.2), dpi=150, layout="constrained")
    FigureCanvasAgg(picture)
    every = [
        second for recipes in found.values() for seconds in recipes.values() for second in seconds
    ]
    lowest, highest = min(every), max(every)
    for place, (axis, recipes) in zip(
        picture.subplots(1, len(found), sharey=True), found.items(), strict=True
    ):
        points = axes[axis]
        for recipe, seconds in recipes.items():
            place.loglog(points, seconds, marker="o", markersize=3, label=recipe)
        first = recipes[RECIPES[0]][0]
        place.loglog(
            points, [first * times for times in proportion(axis, points)], ":", color="grey"
        )
        place.set_title(axis.replace("_", " "), fontsize=10)
        place.set_xticks(points, map(str, points))
        place.set_xticks([], minor=True)
        place.set_ylim(0.8 * lowest, 1.3 * highest)
    picture.axes[0].set_ylabel("seconds a step")
    picture.axes[0].legend(frameon=False)
    picture.savefig(output)


if __name__ == "__main__":
    chart = Path(sys.argv[1])  # missing is an error before minutes of measuring
    found = curves()
    for name, figure in figures(found, AXES).items():
        print(name, figure)
    draw(found, AXES, chart)
