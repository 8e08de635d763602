"""Images with boxes for an HTML page: a small JPEG inside of an SVG, so that lines stay sharp."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image

LONGEST = 480  # pixels of the picture inside the page
MOST_BOXES = 300
BEYOND = 0.25  # of the image, to show boxes that lie outside
# Hues of any number of classes stay apart. None is near red, the colour of a box at fault.
HUES = 40, 310  # degrees
FIRST_HUE, GOLDEN_RATIO = 0.63, 0.381966  # shares of the range: blue, and the step to the next

STYLE = """
.gallery { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)) }
.gallery figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden;
  display: flex; flex-direction: column }
.gallery svg, .absent { width: 100%; height: 15rem; background: var(--track); display: block }
.absent { display: grid; place-items: center }
.gallery figcaption { padding: .5rem .6rem; font-size: 13px; overflow-wrap: anywhere }
.gallery figcaption b { display: block }
.gallery rect { fill: none; vector-effect: non-scaling-stroke }
.gallery .edge { stroke: #000; stroke-opacity: .55; stroke-width: 4 }
.gallery .line { stroke-width: 2 } .gallery .marked { stroke: #ff2d2d; stroke-width: 3.5 }
.swatch { display: inline-block; margin-right: .7em }
.swatch i { display: inline-block; width: .7em;
  height: .7em; border-radius: 2px; margin-right: .3em; border: 1px solid #0006 }
"""


@dataclass(frozen=True)
class Box:
    """A box on a picture: x, y, width, height in pixels, the class, and whether it is at fault."""

    xywh: tuple[float, float, float, float]
    label: int
    name: str
    is_marked: bool = False


def boxed(
    pixels: UInt8[np.ndarray, "H W 3"] | None, boxes: Sequence[Box], caption: str, text: str = ""
) -> str:
    """A figure: the image with its boxes, a caption, and the colours of its classes.

    Args:
        pixels: the image; None if it cannot be shown.
        boxes: in pixels of the image.
        caption: first line below it.
        text: second line below it.
    """
    if pixels is None:
        picture = '<div class="absent">cannot be shown</div>'
    else:
        picture = _svg(pixels, boxes[:MOST_BOXES], caption)
    names = {box.label: box.name for box in boxes}
    swatches = "".join(
        f'<span class="swatch"><i style="background:{colour(label)}"></i>{escape(name)}</span>'
        for label, name in sorted(names.items())[:6]
    )
    words = f"<b>{escape(caption)}</b>{escape(text)}{'<br>' if text and swatches else ''}"
    return f"<figure>{picture}<figcaption>{words}{swatches}</figcaption></figure>"


def gallery(figures: Sequence[str]) -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="gallery">{"".join(figures)}</div>'


def _svg(pixels: UInt8[np.ndarray, "H W 3"], boxes: Sequence[Box], caption: str) -> str:
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels)
    small.thumbnail((LONGEST, LONGEST))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    data = base64.b64encode(buffer.getvalue()).decode()
    # Marked boxes come last, on top of the others.
    ordered = sorted(boxes, key=lambda box: box.is_marked)
    shapes = "".join(map(_shape, ordered))
    left, top, right, bottom = _extent(width, height, boxes)
    return (
        f'<svg role="img" aria-label="{escape(caption)}" '
        f'viewBox="{left:g} {top:g} {right - left:g} {bottom - top:g}">'
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>'
        f"{shapes}</svg>"
    )


def _shape(box: Box) -> str:
    x, y, width, height = box.xywh
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
    kind = "marked" if box.is_marked else f'line" stroke="{colour(box.label)}'
    return (
        f'<rect class="edge" {place}/>'
        f'<rect class="{kind}" {place}><title>{escape(box.name)}</title></rect>'
    )


def _extent(width: int, height: int, boxes: Sequence[Box]) -> tuple[float, float, float, float]:
    """The part of the plane to show: the image, and a margin where a marked box leaves it."""
    left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    for x, y, w, h in (box.xywh for box in boxes if box.is_marked):
        left, top = min(left, x), min(top, y)
        right, bottom = max(right, x + w), max(bottom, y + h)
    return (
        max(left, -BEYOND * width),
        max(top, -BEYOND * height),
        min(right, (1 + BEYOND) * width),
        min(bottom, (1 + BEYOND) * height),
    )


def colour(label: int) -> str:
    """The colour of a class in CSS."""
    low, high = HUES
    share = (FIRST_HUE + label * GOLDEN_RATIO) % 1
    return f"hsl({low + share * (high - low):.0f} 90% 64%)"
