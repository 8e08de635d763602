"""The doctor's report as one HTML file: problems, pictures, classes, sizes and places of boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np

from od_detr.data.writing.folder import refuse_unwritable
from od_detr.doctor.checks.classes import counts_of
from od_detr.doctor.checks.fit import SMALL, trained_sides
from od_detr.doctor.diagnosis import Diagnosis
from od_detr.doctor.problem import Problem, Split
from od_detr.doctor.report.pictures import samples, worst
from od_detr.doctor.report.table import cost_in_words
from od_detr.errors import InputError
from od_detr.files import atomic_write
from od_detr.reporting import boxed, charts
from od_detr.reporting.page import page, paragraph

FIRST_CLASSES = 30
SIDES = (4, 8, 16, 32, 64, 128, 256, 512)
OBJECTS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
GRID = (18, 24)  # rows and columns of the heat map
STYLE = """
:root { --bad: #c62828; --warn: #b26a00; --calm: #5b6470; --card: #f7f8fa }
@media (prefers-color-scheme: dark) {
  :root { --bad: #ff7b72; --warn: #f0b24f; --calm: #9aa4b1; --card: #1e2024 }
}
h2 { margin: 2.2rem 0 .6rem }
.tiles { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)) }
.tile { background: var(--card); border-radius: 8px; padding: .7rem .9rem }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2 }
.problem { border-left: 4px solid var(--calm); background: var(--card); border-radius: 6px;
  padding: .6rem .9rem; margin: .6rem 0; overflow-wrap: anywhere }
.problem.error { border-color: var(--bad) } .problem.warning { border-color: var(--warn) }
.problem header { display: flex; flex-wrap: wrap; gap: .1rem .9rem; align-items: baseline }
.problem header b { flex: 1 1 16rem } .problem p, .problem summary { margin: .2rem 0 }
.cost { font-variant-numeric: tabular-nums; font-weight: 600; min-width: 4.5rem }
.error .cost { color: var(--bad) } .warning .cost { color: var(--warn) }
.problem ul { margin: .3rem 0; padding-left: 1.2rem; font-size: 13px }
.quiet { color: var(--calm) }
.halves { display: grid; gap: 0 2.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
"""


def write_page(diagnosis: Diagnosis, file: Path) -> None:
    """Writes the report.

    Raises:
        InputError: `file` is a folder, or a file that is not an HTML page.
    """
    refuse_other_files(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial:
        partial.write_text(as_page(diagnosis), encoding="utf-8", errors="replace")


def refuse_other_files(file: Path) -> None:
    """Refuses to replace anything but a page.

    Raises:
        InputError: `file` is a folder, or a file that is not an HTML page.
    """
    if file.is_dir():
        raise InputError(f"--report {file}: is a folder; give a file such as {file / 'data.html'}")
    if file.exists() and not file.read_bytes()[:15].lower().startswith(b"<!doctype html"):
        raise InputError(f"--report {file}: exists and is not an HTML page; give another name")
    refuse_unwritable(file, "--report")


def as_page(diagnosis: Diagnosis) -> str:
    """The whole page."""
    style = charts.STYLE + boxed.STYLE + STYLE
    return page(f"Data set {diagnosis.data.name}", _elements(diagnosis), style)


def _elements(diagnosis: Diagnosis) -> Iterator[str]:
    yield _tiles(diagnosis)
    yield "<h2>Problems</h2>"
    if not diagnosis.problems:
        yield paragraph("Nothing was found.")
    else:
        yield paragraph(
            "The most costly first. A cost is the share of the split's boxes, images or classes "
            "with the problem, times how much of such a record is lost. It is not a forecast of AP."
        )
    yield from map(_problem, diagnosis.problems)
    if pictures := worst(diagnosis):
        yield "<h2>The worst images</h2>"
        yield paragraph("Images with the most costly problems. Boxes at fault are red.")
        yield boxed.gallery([each.figure() for each in pictures])
    if diagnosis.splits:
        yield from _charts(diagnosis)
        if shown := samples(diagnosis.splits):
            yield f"<h2>Samples of {escape(diagnosis.splits[0].name)}</h2>"
            yield boxed.gallery([each.figure() for each in shown])


def _tiles(diagnosis: Diagnosis) -> str:
    tiles = []
    for split in diagnosis.splits:
        found = split.annotations
        tiles.append(
            f'<div class="tile">{escape(split.name)}<b>{len(found.image_ids):,} images</b>'
            f'<span class="quiet">{len(found.labels):,} boxes, {len(found.classes)} classes, '
            f"{escape(found.format.upper())}</span></div>"
        )
    stop = len(diagnosis.errors)
    words = f"{stop} kinds of problems" if stop else "nothing"
    looked = "decoded" if diagnosis.examination.decode else "headers read only"
    tiles.append(
        f'<div class="tile">stops a training<b>{words}</b>'
        f'<span class="quiet">of {len(diagnosis.problems)} findings; images {looked}</span></div>'
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _problem(problem: Problem) -> str:
    examples = "".join(f"<li>{escape(each)}</li>" for each in problem.examples)
    split = f"{problem.split}: " if problem.split else ""
    return (
        f'<section class="problem {problem.severity}"><header>'
        f'<span class="cost">{escape(cost_in_words(problem))}</span>'
        f"<b>{escape(problem.kind.title)}</b>"
        f'<span class="quiet">{escape(split)}{problem.count:,} of {problem.total:,}</span></header>'
        f"<p>Fix: {escape(problem.kind.fix)}</p>"
        f"<details><summary>Examples</summary><ul>{examples}</ul></details></section>"
    )


def _charts(diagnosis: Diagnosis) -> Iterator[str]:
    splits = diagnosis.splits
    yield "<h2>Classes</h2>"
    yield from _classes(splits)
    yield '<div class="halves"><div>'
    size = diagnosis.examination.image_size
    yield "<h2>Box sizes</h2>"
    yield paragraph(
        f"Side in pixels of a square with the area of the box, at --image-size {size}. "
        f"Below {SMALL:g} pixels, little is left on the feature maps."
    )
    sides = np.concatenate([trained_sides(split.annotations, size) for split in splits])
    names = _ranges(SIDES)
    yield charts.columns(_histogram(sides, SIDES, names), names[:2])
    yield "</div><div><h2>Objects in an image</h2>"
    yield paragraph("Boxes that are trained on, crowds left out.")
    counts = np.concatenate([split.objects for split in splits])
    labels = [_span(low, high) for low, high in zip(OBJECTS, [*OBJECTS[1:], None], strict=True)]
    yield charts.columns(_histogram(counts, OBJECTS[1:], labels))
    yield "</div></div><h2>Centres of the boxes</h2>"
    yield paragraph("Where objects are, over all images. An even spread is rare and not needed.")
    grid = _centres(splits)
    yield '<div style="max-width:34rem">'
    yield charts.heat_map(grid, "Heat map of the centres of the boxes")
    yield "</div>"


def _classes(splits: Sequence[Split]) -> Iterator[str]:
    counts = [counts_of(split.annotations) for split in splits]
    names = list(dict.fromkeys(name for each in counts for name in each))
    rows = {name: [each.get(name, 0) for each in counts] for name in names}
    ordered = dict(sorted(rows.items(), key=lambda row: -sum(row[1])))
    most = max((sum(values) for values in ordered.values()), default=1)
    yield charts.key([split.name for split in splits])
    yield charts.bars(dict(list(ordered.items())[:FIRST_CLASSES]), most)
    if rest := dict(list(ordered.items())[FIRST_CLASSES:]):
        summary = f"<summary>{len(rest)} more classes</summary>"
        yield f"<details>{summary}{charts.bars(rest, most)}</details>"


def _histogram(values: np.ndarray, edges: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    """Values below the first edge, between each two, and from the last one on."""
    places = np.searchsorted(np.asarray(edges), values, side="right")
    counts = np.bincount(places, minlength=len(edges) + 1).tolist()
    return dict(zip(names, counts, strict=True))


def _ranges(edges: Sequence[int]) -> list[str]:
    between = [f"{low}-{high}" for low, high in pairwise(edges)]
    return [f"< {edges[0]}", *between, f"> {edges[-1]}"]


def _span(low: int, high: int | None) -> str:
    if high is None:
        return f"{low}+"
    return str(low) if high == low + 1 else f"{low}-{high - 1}"


def _centres(splits: Sequence[Split]) -> np.ndarray:
    """How many boxes have their centre in each cell of `GRID`, in shares of their image."""
    total = np.zeros(GRID, np.int64)
    for split in splits:
        found = split.annotations
        sizes = found.sizes[found.owners].astype(np.float64)
        known = (sizes > 0).all(1)
        centres = found.boxes_xywh[known, :2] + found.boxes_xywh[known, 2:] / 2
        shares = centres / sizes[known][:, ::-1]
        inside = ((shares >= 0) & (shares < 1)).all(1)
        cells = (shares[inside][:, ::-1] * GRID).astype(np.int64)
        np.add.at(total, (cells[:, 0], cells[:, 1]), 1)
    return total
