"""Figures of matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def saved_figure(output: Path, title: str = "", **options: Any) -> Iterator[Figure]:
    """Yields a figure to draw on, and saves it.

    Names are drawn as they are: a dollar sign begins no formula.

    Args:
        output: picture to write, in the format of its suffix. Its folder is made.
        title: written above.
        options: of the figure, such as `figsize` in inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"text.parse_math": False}):
        figure = Figure(layout="constrained", **options)
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        yield figure
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output)
