"""What is wrong, or worth knowing, in a data set: readers collect it instead of raising."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from od_detr.errors import InputError

Severity = Literal["error", "warning", "note"]
# Findings of one kind that are kept one by one; the last one kept counts all the others.
MOST_OF_A_KIND = 100
SHOWN_OF_A_KIND = 10  # the same for errors that stop a command
ADD_IMAGE = "add the image or remove its entry"  # what to do about a missing file
WIDEST = 100  # characters to which the columns of a table are aligned


@dataclass(frozen=True)
class Finding:
    """One problem of a data set.

    Attributes:
        code: the kind of problem in kebab-case; stable, for programs.
        severity: `error` stops a training, `warning` counts boxes or images that were changed or
            left out, `note` says how the data was understood.
        source: the file or folder.
        record: the record in it, such as "annotation 5"; empty when the whole file is meant.
        problem: the field and what is wrong with it.
        fix: what the user can do.
        count: how many records have this problem.
    """

    code: str
    severity: Severity
    source: str
    record: str
    problem: str
    fix: str
    count: int = 1

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.source, self.record) if part)
        return f"{place}: {self.problem}; {self.fix}"


def error(code: str, source: object, record: str, problem: str, fix: str) -> Finding:
    """A finding that stops a training."""
    return Finding(code, "error", str(source), record, problem, fix)


def warning(
    code: str, source: object, record: str, problem: str, fix: str, count: int = 1
) -> Finding:
    """A finding that lets a training go on and is counted in its first lines."""
    return Finding(code, "warning", str(source), record, problem, fix, count)


def note(code: str, source: object, problem: str, fix: str, count: int = 1) -> Finding:
    """A finding that only says how the data was understood."""
    return Finding(code, "note", str(source), "", problem, fix, count)


def limited(findings: Sequence[Finding], most: int = MOST_OF_A_KIND) -> list[Finding]:
    """At most `most` findings of each code; the last one kept counts those left out."""
    kept: dict[str, list[Finding]] = {}
    left_out: dict[str, int] = {}
    for finding in findings:
        of_kind = kept.setdefault(finding.code, [])
        if len(of_kind) < most:
            of_kind.append(finding)
        else:
            left_out[finding.code] = left_out.get(finding.code, 0) + finding.count
    for code, number in left_out.items():
        last = kept[code][-1]
        kept[code][-1] = replace(last, count=last.count + number)
    return [finding for of_kind in kept.values() for finding in of_kind]


def raise_errors(findings: Iterable[Finding], hint: str = "") -> None:
    """Raises the first error, with a table in its `details` where there are several.

    Args:
        findings: of any severity. One that both parts of a divided set have counts once.
        hint: ends the message.

    Raises:
        InputError: there is an error among the findings.
    """
    errors = list(dict.fromkeys(each for each in findings if each.severity == "error"))
    if not errors:
        return
    more = sum(finding.count for finding in errors) - 1
    if not more:
        raise InputError(f"{errors[0]}{hint}")
    raise InputError(
        f"{errors[0]}{hint} (and {more} more problems)",
        details=table(limited(errors, SHOWN_OF_A_KIND)),
    )


def table(findings: Iterable[Finding]) -> list[str]:
    """Findings as lines of text: under each source its records, problems and fixes, aligned."""
    sources: dict[str, list[tuple[str, str, str]]] = {}
    for each in findings:
        more = f" (and {each.count - 1} more like it)" if each.count > 1 else ""
        row = (each.record, each.problem + more, each.fix)
        sources.setdefault(each.source, []).append(row)
    lines = []
    for source, rows in sources.items():
        widths = [min(max(len(row[column]) for row in rows), WIDEST) for column in (0, 1)]
        lines.append(f"{source}:")
        lines += [
            f"  {record:<{widths[0]}}  {problem:<{widths[1]}}  {fix}".rstrip()
            for record, problem, fix in rows
        ]
    return lines
