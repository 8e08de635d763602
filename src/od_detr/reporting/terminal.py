"""The terminal, for tables made with rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def text_console() -> Console:
    """A console that prints every string as it is, such as a class called "sign [stop]".

    Rich's own reads markup in square brackets, and names of emojis between colons.
    """
    from rich.console import Console

    return Console(markup=False, emoji=False)
