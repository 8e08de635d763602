"""The results of an evaluation as text; `od_detr.evaluation.analysis` describes their keys.

Print it with `text_console`, as class names may look like markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

Results = Mapping[str, Any]
METRICS = (
    ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
ERRORS = {
    "found": "objects found",
    "missed": "objects missed, with no wrong detection either",
    "background": "detections of background",
    "duplicate": "duplicates of a detection that finds its object",
    "wrong_class": "detections with the wrong class",
    "badly_placed": "badly placed boxes (IoU 0.1 to 0.5)",
}
MOST_CONFUSIONS = 10
MOST_CLASSES_IN_MATRIX = 8


def described(results: Results) -> Group:
    """A rich renderable: AP by IoU and class, threshold, errors, duplicates and confusions."""
    from rich.console import Group

    parts = [ious_table(results), "", classes_table(results), "", *threshold_lines(results)]
    parts += ["", errors_table(results), "", duplicates_line(results)]
    if "confusion" in results:
        parts += ["", *confusions(results["confusion"])]
    return Group(*parts)


def format_metrics(summary: Results, title: str = "") -> Group:
    """A rich renderable: the twelve metrics in percent."""
    from rich.console import Group
    from rich.table import Table

    tables = []
    for row in METRICS:
        table = Table(
            title=title if row is METRICS[0] and title else None,
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="dim",
        )
        for name in row:
            table.add_column(name, justify="right", min_width=5)
        table.add_row(*[percent(summary[name]) for name in row])
        tables.append(table)
    return Group(*tables)


def format_table(summary: Results, title: str = "") -> Group:
    """A rich renderable: the twelve metrics in percent, then the classes from best to worst."""
    from rich.columns import Columns
    from rich.console import Group

    ranked = sorted(summary["per_class"].items(), key=lambda item: -item[1])
    width = max((len(name) for name, _ in ranked), default=0)
    classes = Columns(
        [f"{name:<{width}} {percent(value):>5}" for name, value in ranked],
        padding=(0, 3),
        expand=False,
    )
    return Group(format_metrics(summary, title), "", classes)


def percent(value: float) -> str:
    """A share in percent with one decimal; "-" where it is not defined (negative)."""
    return "-" if value < 0 else f"{100 * value:.1f}"


def ious_table(results: Results) -> Table:
    """AP at each IoU from which a box counts as found: how well boxes are placed."""
    table = _table("IoU", *results["per_iou"])
    table.add_row("AP", *map(percent, results["per_iou"].values()))
    return table


def classes_table(results: Results) -> Table:
    """AP of each class, from best to worst, and what the threshold gives for it."""
    table = _table("class", "objects", "AP", "precision", "recall", "F1", "its best threshold")
    for name, ap in sorted(results["per_class"].items(), key=lambda item: -item[1]):
        at = results["classes"][name]
        figures = (percent(at[key]) for key in ("precision", "recall", "F1"))
        best = f"{at['best_threshold']:.2f} (F1 {percent(at['best_F1'])})"
        unknown = at["best_F1"] == 0
        table.add_row(name, str(at["objects"]), percent(ap), *figures, "-" if unknown else best)
    return table


def threshold_lines(results: Results) -> Iterator[str]:
    """The threshold that was used, what it gives, and the best one."""
    used, best = results["threshold"], results["best_threshold"]
    precision, recall, f1 = (percent(results[key]) for key in ("precision", "recall", "F1"))
    yield f"At threshold {used:.2f}: precision {precision}, recall {recall}, F1 {f1}."
    if best is None:
        yield "No threshold is best: nothing is found at any."
    elif best == used:
        yield "This is the threshold with the highest F1 on this data."
    else:
        highest = max(results["curves"]["all"]["F1"])
        yield f"The highest F1 on this data is {percent(highest)}, at threshold {best:.2f}."


def errors_table(results: Results) -> Table:
    """Numbers of objects and detections of each kind at the threshold."""
    table = _table(f"at threshold {results['threshold']:.2f}", "number")
    for kind, number in results["errors"].items():
        table.add_row(ERRORS[kind], str(number))
    return table


def duplicates_line(results: Results) -> str:
    """How far the detector is from needing no suppression."""
    share, before, after = (results[key] for key in ("duplicates", "AP", "AP_nms"))
    return (
        f"{percent(share)} % of these detections repeat another (IoU above 0.7). Suppressing "
        f"duplicates would change AP from {percent(before)} to {percent(after)}."
    )


def confusions(confusion: Results) -> Iterator[Any]:
    """The confusion matrix of a few classes, else the most frequent confusions of many."""
    classes, matrix = confusion["classes"], confusion["matrix"]
    if len(classes) - 1 <= MOST_CLASSES_IN_MATRIX:
        table = _table("object \\ detected as", *classes[:-1], "missed")
        for name, row in zip(classes, matrix, strict=True):
            table.add_row(name, *map(str, row))
        yield table
        return
    pairs = [
        (count, name, other)
        for name, row in zip(classes[:-1], matrix, strict=False)
        for other, count in zip(classes[:-1], row, strict=False)
        if name != other and count
    ]
    table = _table("object", "detected as", "number")
    for count, name, other in sorted(pairs, key=lambda pair: -pair[0])[:MOST_CONFUSIONS]:
        table.add_row(name, other, str(count))
    yield table if pairs else "No class is taken for another."


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
