"""YAML of plain values, bounded in size and depth, each name once."""

from __future__ import annotations

import re
from typing import Any

import yaml

LARGEST = 1_000_000  # characters; a complete config.yaml has about 2,000
DEEPEST = 16  # levels of nesting; a config.yaml has 4


class _Loader(yaml.SafeLoader):
    """YAML 1.2 for true, false and numbers; a key may not be repeated."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; PyYAML itself would silently keep the last of equal keys."""
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.MarkedYAMLError(
                problem=f"{min(map(str, twice))} is given twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` or YAML 1.1 would take for something else."""


# YAML 1.1 reads `on` as true, 1e-4 as a text, 010 as 8 and 1:30 as 90, which surprises everybody.
# Whole numbers with zeros in front stay texts: they are names, such as the classes 07, 08 and 09.
TYPES = (":bool", ":int", ":float")
_NUMBER = "-+.0123456789"
_PLAIN = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9]\d*)$|^0x[0-9a-fA-F]+$", _NUMBER),
    (
        "float",
        r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$",
        _NUMBER,
    ),
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(TYPES)]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _first in _PLAIN:
    for _each in (_Loader, _Dumper):
        _each.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first)
        )


def parse_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        ValueError: it is not YAML, repeats a key, has anchors, or is too large or too deep.
    """
    if len(text) > LARGEST:
        raise ValueError(f"has more than {LARGEST} characters")
    try:
        _check_events(text)
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise ValueError(f"is not valid YAML ({place}{problem})") from error


def dump_yaml(content: Any) -> str:
    """Plain values as a YAML text, mappings in their order; `parse_yaml` gives them back."""
    return yaml.dump(content, Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def _check_events(text: str) -> None:
    """Refuses anchors, which can build a cycle or a huge document, and deep nesting."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if getattr(event, "anchor", None):
            raise ValueError(f"has an anchor or alias ({event.anchor}); write the value out")
        if depth > DEEPEST:
            raise ValueError(f"is nested more than {DEEPEST} levels deep")
