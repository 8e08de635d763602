"""Charts made of HTML and CSS alone, for pages that need no script and no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from jaxtyping import Num
from PIL import Image

# Colours of up to four series; those of the dark theme are lighter.
STYLE = """
:root { --s0: #2f6fdd; --s1: #d9822b; --s2: #2a9d6f; --s3: #8a63d2; --track: #f0f1f4 }
@media (prefers-color-scheme: dark) {
  :root { --s0: #6ea0ff; --s1: #f0a94e; --s2: #58c79a; --s3: #b79cf0; --track: #24262b }
}
.s0 { background: var(--s0) } .s1 { background: var(--s1) }
.s2 { background: var(--s2) } .s3 { background: var(--s3) }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .3rem 0; font-size: 13px }
.key i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px }
.bars { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr max-content;
  gap: .15rem .7rem; align-items: center; font-variant-numeric: tabular-nums }
.bars > span { overflow: hidden; text-overflow: ellipsis; max-width: 14rem; white-space: nowrap }
.bars > b { font-weight: 400; text-align: right }
.track { display: flex; height: .95rem; background: var(--track); border-radius: 3px;
  overflow: hidden }
.columns { display: flex; align-items: stretch; gap: 2px; height: 11rem; margin: .5rem 0 }
.columns > div { flex: 1 1 0; min-width: 0; display: flex; flex-direction: column;
  justify-content: flex-end; text-align: center; font-size: 11px; line-height: 1.3 }
.columns i { display: block; border-radius: 3px 3px 0 0; min-height: 1px }
.columns small { border-top: 1px solid var(--rule); padding-top: .15rem; white-space: nowrap;
  overflow: hidden; font-size: 11px }
.heat { position: relative; background: var(--track); border: 1px solid var(--line);
  margin: .5rem 0 }
.heat img { display: block; width: 100%; image-rendering: pixelated; background: none }
@media (max-width: 36rem) { .bars > span { max-width: 7rem } .columns b { font-size: 9px }
  .columns small { font-size: 9px } }
"""


def key(series: Sequence[str]) -> str:
    """Which colour is which series; nothing for a single one."""
    if len(series) < 2:
        return ""
    items = (
        f'<span><i class="s{n % 4}"></i>{escape(name)}</span>' for n, name in enumerate(series)
    )
    return f'<div class="key">{"".join(items)}</div>'


def bars(rows: Mapping[str, Sequence[int]], longest: int) -> str:
    """Horizontal bars, one for each name, with a segment for each series.

    Args:
        rows: the values of each name, none negative.
        longest: the value of a full bar.
    """
    full = max(1, longest)
    parts = []
    for name, values in rows.items():
        segments = "".join(
            f'<i class="s{n % 4}" style="width:{100 * value / full:.2f}%"></i>'
            for n, value in enumerate(values)
        )
        label, number = escape(name), f"{sum(values):,}"
        parts.append(
            f'<span title="{label}">{label}</span>'
            f'<div class="track">{segments}</div><b>{number}</b>'
        )
    return f'<div class="bars">{"".join(parts)}</div>'


def columns(values: Mapping[str, int], marked: Sequence[str] = ()) -> str:
    """Vertical columns with their share of the total; `marked` names have another colour."""
    total, most = max(1, sum(values.values())), max(1, max(values.values(), default=1))
    parts = []
    for name, value in values.items():
        share = 100 * value / total
        words = f"{share:.0f}%" if share >= 1 else ("<1%" if value else "")
        colour = "s1" if name in marked else "s0"
        parts.append(
            f'<div title="{escape(name)}: {value:,}"><b>{escape(words)}</b>'
            f'<i class="{colour}" style="height:{80 * value / most:.1f}%"></i>'
            f"<small>{escape(name)}</small></div>"
        )
    return f'<div class="columns">{"".join(parts)}</div>'


def heat_map(counts: Num[np.ndarray, "R C"], alternative: str) -> str:
    """A grid of counts as a picture; more of them are more opaque.

    Args:
        counts: none negative.
        alternative: what a screen reader says.
    """
    shares = np.sqrt(counts / max(1, counts.max()))  # few next to many still show
    pixels = np.empty((*counts.shape, 4), np.uint8)
    pixels[..., :3] = (217, 98, 43)
    pixels[..., 3] = np.round(255 * shares)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<div class="heat"><img alt="{escape(alternative)}" style="aspect-ratio:1.333" '
        f'src="data:image/png;base64,{data}"></div>'
    )
