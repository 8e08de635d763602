"""What the documents say was measured is what the records in docs/evidence show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest

from od_detr.experiments.plan import Plan, shared_options
from od_detr.experiments.results import paired
from od_detr.experiments.runs import finished
from od_detr.experiments.tables import TABLES

DOCS = Path(__file__).parents[2] / "docs"
ROWS = list({row: None for table in TABLES.values() for row in table.rows})
COLUMNS = {
    "AP": "val/AP",
    "AP50": "val/AP50",
    "instability": "stability/instability",
    "consistency %": "stability/consistency",
}
DUPLICATES = {"AP after NMS at 0.7": "val/AP_nms", "duplicates %": "val/duplicates"}


@cache
def record(place: str) -> dict:
    return json.loads((DOCS / "evidence" / place / "done.json").read_text())


def records(folder: str, row: str) -> list[dict]:
    """A row's finished runs, seed after seed."""
    places = (DOCS / "evidence" / folder).glob(f"{row}-seed[0-9]*")
    return [record(f"{folder}/{place.name}") for place in sorted(places)]


def mean_and_spread(values: Iterable[float], digits: int = 1) -> str:
    values = list(values)
    spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def row_results() -> str:
    """A table of all rows with records at scale tiny, and the AP of the reported detector."""
    lines = ["| row | title | detector | seeds | AP |", "|---|---|---|---|---|"]
    for row in ROWS:
        experiment = row()
        runs = records("scenes", experiment.name)
        if runs:
            ap = mean_and_spread(100 * run[experiment.weights]["AP"] for run in runs)
            table = row.__module__.rpartition(".")[2]
            cells = (
                f"{table}/{experiment.name}",
                experiment.title,
                experiment.weights,
                len(runs),
                ap,
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def test_the_rows_results_are_their_records() -> None:
    assert row_results() in (DOCS / "evidence" / "rows.md").read_text()


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row.__module__.rpartition('.')[2]}-{row.__name__}"
)
def test_a_rows_docstring_holds_the_papers_numbers_and_none_of_ours(row) -> None:
    experiment = row()
    if experiment.reported is not None:
        assert str(experiment.reported) in " ".join(row.__doc__.split())
    assert "±" not in row.__doc__


def tables_of(mark: str) -> Iterable[tuple[str, list[dict[str, str]]]]:
    """Tables below `<!-- MARK -->`: what the mark matches in brackets, and the rows by column."""
    text = (DOCS / "evidence.md").read_text()
    for folder, table in re.findall(rf"<!-- {mark} -->\n\n((?:\|.*\n)+)", text):
        head, _, *rows = [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in table.splitlines()
        ]
        yield folder, [dict(zip(head, row, strict=True)) for row in rows]


def test_the_tables_of_the_evidence_are_its_records() -> None:
    tables = list(tables_of(r"records: (\S+)"))
    assert len(tables) == 15
    for folder, rows in tables:
        for row in rows:
            runs = records(folder, row["row"])
            assert len(runs) == len(row["seeds"].split(", ")), (folder, row)
            assert row["seeds"] == ", ".join(f"{100 * run['last']['val/AP']:.1f}" for run in runs)
            for column, key in COLUMNS.items():
                assert row[column] == shown(runs, column, key), (folder, row["row"], column)


def shown(runs: list[dict], column: str, key: str) -> str:
    """What a table says about the last validation of a row's runs."""
    digits, scale = (2, 1) if column == "instability" else (1, 100)
    return mean_and_spread((scale * run["last"][key] for run in runs), digits)


def test_longer_schedules_are_their_records() -> None:
    ((_, rows),) = tables_of("(schedules)")
    assert len(rows) == 8
    for row in rows:
        runs = records(row["records"], row["row"])
        (last,) = (run["last"] for run in runs)
        assert (row["epochs"], row["steps"]) == (str(last["epoch"]), f"{last['step']:,}")
        assert row["GIoU loss"] == f"{last['train/matching/giou/3']:.3f}"
        for column, key in (COLUMNS | DUPLICATES).items():
            assert row[column] == shown(runs, column, key), (row, column)


def test_fine_tuning_is_its_records() -> None:
    ((_, rows),) = tables_of("(fine-tuning)")
    assert len(rows) == 11
    for row in rows:
        runs = records("fine-tuning", row["row"])
        (last,) = (run["last"] for run in runs)
        assert (row["epochs"], row["steps"]) == (str(last["epoch"]), f"{last['step']:,}")
        columns = {"AP": "val/AP", "AP50": "val/AP50", "AP of the average": "val/teacher/AP"}
        for column, key in columns.items():
            assert row[column] == shown(runs, column, key), row


def test_leads_and_their_p_values_are_those_of_the_records() -> None:
    ((_, rows),) = tables_of("(paired)")
    assert len(rows) == 36
    for row in rows:
        ours, others = (
            {number: {"AP": 100 * run["last"]["val/AP"]} for number, run in enumerate(runs)}
            for runs in (records(row["records"], row[name]) for name in ("row", "over"))
        )
        found = paired(ours, others)
        assert (row["lead in AP"], row["p"]) == (
            f"{found['difference']:+.1f}",
            f"{found['p']:.2g}",
        ), row


def test_duplicates_are_those_of_the_records_that_counted_them() -> None:
    tables = dict(tables_of(r"duplicates: (\S+)"))
    assert {folder: len(rows) for folder, rows in tables.items()} == {
        "scenes-equal-time": 4,
        "scenes-10-epochs": 4,
        "scenes-40-epochs": 2,
        "scenes-tables": 10,
        "scenes-rate": 3,
        "scenes-architectures": 4,
        "bccd-equal-time": 5,
        "bccd-448-equal-time": 2,
        "bccd-45-epochs": 2,
        "bccd-71-equal-time": 1,
    }
    for folder, row in ((folder, row) for folder, rows in tables.items() for row in rows):
        runs = [run["last"] for run in records(folder, row["row"])]
        runs = [run for run in runs if "val/AP_nms" in run]
        assert runs, row
        assert {run["epoch"] for run in runs} == {int(row.get("epochs", 4))}
        for column, key in ({"AP": "val/AP"} | DUPLICATES).items():
            assert row[column] == f"{fmean(100 * run[key] for run in runs):.1f}", row


def test_averages_of_weights_are_those_of_the_records() -> None:
    ((_, rows),) = tables_of("(averages)")
    assert len(rows) == 12
    for row in rows:
        runs = records(row["records"], row["row"])
        assert len(runs) == 3
        for column, detector, key in (
            ("AP online", "online", "AP"),
            ("AP of the average", "teacher", "AP"),
            ("AP75 online", "online", "AP75"),
        ):
            assert row[column] == f"{fmean(100 * run[detector][key] for run in runs):.1f}", row


def test_every_record_is_finished_and_tells_its_commit() -> None:
    for place in sorted((DOCS / "evidence").glob("*/*")):
        facts = record(f"{place.parent.name}/{place.name}")
        assert re.fullmatch(r"[0-9a-f]{12}", facts["commit"]), place
        assert (place / "config.yaml").is_file()
        assert (place / "metrics.csv").is_file()


@pytest.mark.parametrize("name", ["table3", "table4", "table5", "table6"])
def test_reproduce_takes_the_records_of_a_table_for_finished_runs(name: str) -> None:
    output = DOCS / "evidence" / "scenes-tables"
    plan = Plan(name, TABLES[name], "tiny", shared_options("tiny", None, output, {}), output)
    kept = [
        run for run in plan.runs(plan.table.experiments(), range(3)) if Path(run.output).is_dir()
    ]
    assert kept
    assert all(finished(run) for run in kept)
