"""What the doctor prints: the problems, the most costly first, with how to fix them."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from od_detr.data.counts import counted
from od_detr.doctor.diagnosis import Diagnosis
from od_detr.doctor.problem import Problem

EXAMPLES = 2
COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


def cost_in_words(problem: Problem) -> str:
    """What a problem costs, such as "stops training" or "3.1 %"."""
    if problem.severity == "error":
        return "stops training"
    if not problem.cost:
        return "note" if problem.severity == "note" else "no cost"
    return f"{100 * problem.cost:.1f} %" if problem.cost >= 0.0005 else "< 0.1 %"


def summary(diagnosis: Diagnosis) -> list[str]:
    """What was examined, a line for each split."""
    looked = "decoded" if diagnosis.examination.decode else "headers read"
    return [
        f"{split.name}: {split.annotations.format.upper()}, "
        f"{counted(len(split.annotations.image_ids), 'image')} ({looked}), "
        f"{counted(len(split.annotations.labels), 'box')}, "
        f"{counted(len(split.annotations.classes), 'class')}, in {split.annotations.file}"
        for split in diagnosis.splits
    ]


def table(diagnosis: Diagnosis) -> Table:
    """The problems as a table for the terminal; print it with `text_console`."""
    made = Table(title=f"{diagnosis.data}: what was found, the most costly first", show_lines=True)
    for name, justify in (("cost", "right"), ("split", "left"), ("count", "right")):
        made.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    made.add_column("problem, examples, and how to fix it", overflow="fold")
    for problem in diagnosis.problems:
        cost = Text(cost_in_words(problem), COLOURS[problem.severity])
        made.add_row(cost, problem.split or "-", str(problem.count), _described(problem))
    return made


def _described(problem: Problem) -> Text:
    lines = [Text(_joined(problem.kind.title), "bold")]
    lines += [Text(_joined(each)) for each in problem.examples[:EXAMPLES]]
    more = problem.count - min(EXAMPLES, len(problem.examples))
    lines += [Text(f"and {more} more")] if more > 0 else []
    fix = Text.assemble(("fix:", "cyan"), f" {_joined(problem.kind.fix)}")
    return Text("\n").join([*lines, fix])


def _joined(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())
