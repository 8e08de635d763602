"""Reads a YAML file of options: plain values only, bounded in size and depth, each name once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from od_detr.errors import InputError
from od_detr.files import read_text
from od_detr.options.fields import options_of
from od_detr.options.reading import checked_value, flatten

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


# YAML 1.1 reads `on` as true and 1e-4 as a text, which surprises everybody.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":bool", ":float"))]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
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


def read_config(options: type, file: Path, label: str = "") -> dict[str, Any]:
    """The checked values of a YAML file of options by dotted name; earlier names are translated.

    Args:
        options: the dataclass that the options are for.
        file: the YAML file.
        label: stands before the file in messages, such as `--config `.

    Raises:
        InputError: the file cannot be read, has an unknown option or a wrong value.
    """
    where = f"{label}{file}"
    try:
        content = parse_yaml(read_text(file, "YAML file of options"))
    except InputError as error:
        raise InputError(f"{label}{error}") from error
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct it or write a new file") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: holds no options; write lines such as 'epochs: 24'")

    def naming(name: str) -> str:
        return f"{where}: {name}"

    known = options_of(options)
    values = flatten(options, content, naming)
    return {name: checked_value(known[name], value, naming) for name, value in values.items()}


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
