"""`od-detr evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from od_detr.errors import InputError
from od_detr.options.commands.evaluate import EvaluateOptions

PICTURES = (".png", ".pdf", ".svg", ".jpg")


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluates, prints the results and writes what was asked for."""
    from od_detr.data.counts import counted
    from od_detr.inference.evaluate import evaluate_as
    from od_detr.reporting.evaluation import described, format_metrics
    from od_detr.reporting.terminal import text_console

    figure = _picture(options.figure)
    results = evaluate_as(options)
    title = f"{options.run}, {options.split} split, {options.weights} weights"
    console = text_console()
    for line in results["notes"]:
        print(line)
    console.print(format_metrics(results, title), "", described(results))
    if results["skipped"]:
        console.print(f"Left out as unusable: {counted(len(results['skipped']), 'image')}.")
    if results["AP"] < 0:
        console.print(f"The {options.split} split has no objects, so AP cannot be measured.")
    if figure is not None:
        from od_detr.reporting.evaluation_figure import evaluation_figure

        evaluation_figure(results, figure, title)
    return results


def _picture(figure: str | None) -> Path | None:
    """The picture's path, checked before anything is computed."""
    if figure is None:
        return None
    path = Path(figure)
    if path.suffix.lower() not in PICTURES:
        raise InputError(f"--figure {figure}: must end in {', '.join(PICTURES)}")
    return path
