"""Translates names of weights between two code bases."""

from __future__ import annotations

import re

Pair = tuple[str, str]


class Renaming:
    """Two-way translation by a list of name pairs; the first pair that matches is used.

    In a pair, ``{}`` matches a number, which is the same on both sides. A name that ends with a dot
    matches every name that starts with it.
    """

    def __init__(self, *pairs: Pair) -> None:
        self.pairs = pairs
        self._rightwards = [(_pattern(left), right) for left, right in pairs]
        self._leftwards = [(_pattern(right), left) for left, right in pairs]

    def right(self, name: str) -> str | None:
        """The right name for a left one, or None if no pair matches."""
        return _translate(name, self._rightwards)

    def left(self, name: str) -> str | None:
        """The left name for a right one, or None if no pair matches."""
        return _translate(name, self._leftwards)


def mlp_names(left: str, right: str, layers: int) -> tuple[Pair, ...]:
    """Name pairs for an MLP: a list of linear layers (left), and one with ReLUs between (right)."""
    return tuple((f"{left}.layers.{layer}.", f"{right}.{2 * layer}.") for layer in range(layers))


def _pattern(template: str) -> re.Pattern[str]:
    exact = "(.*)" if template.endswith(".") else "()"
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)") + exact + "$")


def _translate(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in rules:
        if match := pattern.match(name):
            *numbers, rest = match.groups()
            return template.format(*numbers) + rest
    return None
