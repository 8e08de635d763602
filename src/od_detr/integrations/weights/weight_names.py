"""Names of the same weights in two code bases."""

from __future__ import annotations

import re

Pair = tuple[str, str]


class Renaming:
    """Pairs of names, left and right, the first that fits being taken.

    In a pair ``{}`` stands for a number, the same on both sides, and a final dot for every name
    below.
    """

    def __init__(self, *pairs: Pair) -> None:
        self.pairs = pairs
        self._rightwards = [(_pattern(left), right) for left, right in pairs]
        self._leftwards = [(_pattern(right), left) for left, right in pairs]

    def right(self, name: str) -> str | None:
        """The right-hand name of a left-hand one, None where there is none."""
        return _translate(name, self._rightwards)

    def left(self, name: str) -> str | None:
        """The left-hand name of a right-hand one, None where there is none."""
        return _translate(name, self._leftwards)


def mlp_names(left: str, right: str, layers: int) -> tuple[Pair, ...]:
    """Name pairs for an MLP: a list of linear layers, and one with ReLUs between them."""
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
