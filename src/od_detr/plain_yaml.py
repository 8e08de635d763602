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

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        """A whole number; leading zeros mean nothing."""
        text = str(self.construct_scalar(node))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


# YAML 1.1 reads `on` as true, 1e-4 as a text, 010 as 8 and 1:30 as 90, which surprises everybody.
TYPES = (":bool", ":int", ":float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(TYPES)]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?\d+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    list("-+0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$"),
    list("-+.0123456789"),
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
