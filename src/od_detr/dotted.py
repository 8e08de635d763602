"""Options by their dotted names, as they are typed: `opt.lr`, `md.wd`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

Options = TypeVar("Options")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names. The backbone's own options stay one value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and key != "backbone_options"
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def with_values(options: Options, values: Mapping[str, Any]) -> Options:
    """A dataclass of options with some of them changed."""
    for name, value in values.items():
        group, _, switch = name.rpartition(".")
        change = (
            {group: replace(getattr(options, group), **{switch: value})}
            if group
            else {switch: value}
        )
        options = replace(options, **change)  # type: ignore[type-var]
    return options
