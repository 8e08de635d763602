"""The results of an evaluation as a picture; `od_detr.evaluation.analysis` describes their keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from od_detr.reporting.curves import COLOURS
from od_detr.reporting.figures import saved_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = Mapping[str, Any]
MOST_CLASSES = 30  # whose bars and names can be read
WIDEST_NUMBERS = 12  # classes up to which the matrix shows its counts


def evaluation_figure(results: Results, output: Path, title: str = "") -> None:
    """Draws curves over the threshold, kinds of error, AP by class and the confusion matrix.

    Args:
        results: those of an evaluation, with `confusion`.
        output: picture to write, in the format of its suffix.
        title: written above.
    """
    with saved_figure(output, title, figsize=(13, 10), dpi=120) as figure:
        (curves, errors), (classes, confusion) = figure.subplots(2, 2)
        _draw_curves(curves, results)
        _draw_errors(errors, results)
        _draw_classes(classes, results)
        _draw_confusion(confusion, results["confusion"])


def _draw_curves(axes: Axes, results: Results) -> None:
    curves = results["curves"]
    for number, name in enumerate(("precision", "recall", "F1")):
        axes.plot(curves["threshold"], curves["all"][name], color=COLOURS[number], label=name)
    axes.axvline(results["threshold"], color="#808080", linewidth=1, linestyle=":")
    at = f"threshold {results['threshold']:.2f}: F1 {results['F1']:.2f}"
    _titled(axes, f"All classes, {at}")
    axes.set(xlabel="threshold", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=9)


def _draw_errors(axes: Axes, results: Results) -> None:
    names = [name.replace("_", " ") for name in results["errors"]]
    bars = axes.barh(names, list(results["errors"].values()), color=COLOURS[1])
    bars.patches[0].set_color(COLOURS[2])  # the first kind is not an error
    axes.bar_label(bars, fontsize=9, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    _titled(axes, "Objects and detections at this threshold")


def _draw_classes(axes: Axes, results: Results) -> None:
    ranked = sorted(results["per_class"].items(), key=lambda item: -item[1])
    ranked = [(name, ap) for name, ap in ranked if ap >= 0]
    if len(ranked) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        ranked = ranked[:half] + ranked[-half:]
    names, values = [name for name, _ in ranked], [100 * ap for _, ap in ranked]
    bars = axes.barh(range(len(names)), values, color=COLOURS[0])
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    few = len(results["per_class"]) <= MOST_CLASSES
    best_and_worst = f"the {MOST_CLASSES // 2} best and worst classes"
    _titled(axes, f"AP (%) of {'each class' if few else best_and_worst}")


def _draw_confusion(axes: Axes, confusion: Results) -> None:
    classes, counts = confusion["classes"], np.array(confusion["matrix"])
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places, size = range(len(classes)), 9 if len(classes) <= MOST_CLASSES else 4
    axes.set_xticks(places, [*classes[:-1], "missed"], rotation=90, fontsize=size)
    axes.set_yticks(places, classes, fontsize=size)
    axes.set(xlabel="detected as", ylabel="object")
    if len(classes) <= WIDEST_NUMBERS:
        for row, column in np.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            place = {"ha": "center", "va": "center", "color": colour, "fontsize": 8}
            axes.text(column, row, str(counts[row, column]), **place)
    axes.set_title("Confusion (shade: share of the row)", loc="left", fontsize=10)


def _titled(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.tick_params(labelsize=9, length=2)
    axes.spines[["top", "right"]].set_visible(False)
