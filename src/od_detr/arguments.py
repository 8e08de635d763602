"""Command-line arguments: jsonargparse over plain dataclasses, spelt with hyphens, refused in one line."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser

from od_detr.errors import InputError

Options = TypeVar("Options")
NAME = re.compile(r"--[a-z][a-z0-9_.]*")


class Parser(ArgumentParser):
    """Parses one verb into one dataclass. Its fields are flags; those named in `positional` come without a name."""

    def __init__(self, verb: str, options: type, positional: Sequence[str] = (), config: bool = False) -> None:
        super().__init__(
            prog=f"od-detr {verb}", description=(options.__doc__ or verb).split("\n\n")[0], exit_on_error=True
        )
        self.usage = " ".join([f"od-detr {verb}", *(name.upper() for name in positional), "[options]"])
        self.options_class = options
        named: set[str | int] = set(positional)
        if config:
            self.add_argument("--config", action=ActionConfigFile, help="YAML of any of these options")
        self.flags = {field.name for field in dataclasses.fields(options) if field.type in ("bool", bool)}
        hints, help_texts = get_type_hints(options), _descriptions(options)
        for field in dataclasses.fields(options):
            if field.name in named:
                many = str(field.type).startswith("list")
                kind: Any = hints[field.name].__args__[0] if many else hints[field.name]
                many_or_one: dict[str, Any] = {"nargs": "+"} if many else {}
                self.add_argument(field.name, type=kind, help=help_texts[field.name], **many_or_one)
        self.add_class_arguments(options, as_group=False, skip=named)

    def parse(self, arguments: Sequence[str]) -> Any:
        """The options, or InputError with one line that names the nearest known option."""
        parsed = self.parse_args(list(self._spelt(arguments)))
        values = self.instantiate(parsed).as_dict() if hasattr(self, "instantiate") else parsed.as_dict()
        values.pop("config", None)
        return self.options_class(**values)

    def _spelt(self, arguments: Sequence[str]) -> Sequence[str]:
        """Hyphens become the underscores of Python's names, and a flag without a value means true."""
        spelt: list[str] = []
        for index, argument in enumerate(arguments):
            name, equals, value = argument.partition("=")
            if not name.startswith("--") or len(name) < 3:
                spelt.append(argument)
                continue
            key = name[2:].replace("-", "_")
            key = key + "_" if f"{key}_" in self._known() else key
            if key not in self._known() and key not in ("help", "print_config"):
                near = difflib.get_close_matches(key, self._known(), 1)
                hint = f"did you mean --{_shown(near[0])}?" if near else "see --help"
                raise InputError(f"{name}: no such option; {hint}")
            spelt.append(f"--{key}{equals}{value}")
            following = arguments[index + 1] if index + 1 < len(arguments) else "--"
            if key in self.flags and not equals and following not in ("true", "false"):
                spelt.append("true")
        return spelt

    def _known(self) -> list[str]:
        return [string[2:] for action in self._actions for string in action.option_strings if string.startswith("--")]

    def format_help(self) -> str:
        """The help with the flags as they are typed, and without the groups' own config files."""
        text = re.sub(r"\n  --[a-z_]+ CONFIG +Path to a configuration file\.", "", super().format_help())
        return NAME.sub(lambda match: "--" + _shown(match.group()[2:]), text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(str(message).split())
        line = re.sub(r'Parser key "([a-z0-9_.]+)":', lambda match: f"--{_shown(match.group(1))}:", line)
        line = re.sub(r"[Kk]ey \"([a-z0-9_.]+)\" is required", lambda m: f"--{_shown(m.group(1))} is required", line)
        raise InputError(f"{NAME.sub(lambda match: '--' + _shown(match.group()[2:]), line)} (see {self.prog} --help)")


def _shown(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _descriptions(options: type) -> dict[str, str]:
    """What the docstring's Args section says of each field."""
    found = re.findall(r"^ +([a-z_]+): (.+)$", options.__doc__ or "", re.MULTILINE)
    return dict(found)
