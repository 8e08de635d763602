"""A table of text, as Markdown and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class TextTable:
    """Cells as a reader sees them.

    Args:
        head: names of the columns.
        rows: the cells of each row, one per column.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_markdown(self) -> str:
        """The table in Markdown, without a line break at the end."""
        lines = [self.head, *self.rows]
        head, *rows = [f"| {' | '.join(cells)} |" for cells in lines]
        return "\n".join([head, "|" + "---|" * len(self.head), *rows])

    def as_html(self) -> str:
        """The table as a `<table>` element."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.head)
        body = "".join(f"<tr>{_cells(row)}</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: tuple[str, ...]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in row)
