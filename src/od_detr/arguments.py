"""Command-line arguments: jsonargparse over plain dataclasses, spelt with hyphens, refused in one line."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser

from od_detr.errors import InputError
from od_detr.training.limits import check_limits, flag_name

Options = TypeVar("Options")
NAME = re.compile(r"--[a-z][a-z0-9_.-]*")
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "a mapping such as {'channels': [32, 64]}",
    "tuple": "a list such as [1, 2]",
    "NoneType": "null",
}
# jsonargparse's messages and how they are said here.
WORDINGS = [
    (r'Parser key "([a-z0-9_.]+)":', lambda m: f"--{flag_name(m[1])}:"),
    (r'[Kk]ey "([a-z0-9_.]+)" is required', lambda m: f"--{flag_name(m[1])} is missing"),
    (r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)", lambda m: _one_of(m[2], m[1])),
    (r"Expected a (.*?)\. Got value: (.*)", lambda m: f"{m[2]!r} is not {_kinds(m[1])}"),
    (
        r"Does not validate against .*? Subtypes: \[(.*)\] Errors: .* Given value: (.*)",
        lambda m: _neither(m[2], m[1]),
    ),
    (r"argument (--\S+): expected one argument", lambda m: f"{m[1]}: has no value; give one"),
    (
        r"unrecognized arguments: (.*)",
        lambda m: f"{m[1]}: not expected here; options begin with --",
    ),
]


class Parser(ArgumentParser):
    """Parses one verb into one dataclass. Its fields are flags; those named in `positional` come without a name."""

    def __init__(
        self, verb: str, options: type, positional: Sequence[str] = (), config: bool = False
    ) -> None:
        super().__init__(
            prog=f"od-detr {verb}",
            description=(options.__doc__ or verb).split("\n\n")[0],
            exit_on_error=True,
        )
        self.positional = positional
        self.usage = " ".join(
            [f"od-detr {verb}", *(name.upper() for name in positional), "[options]"]
        )
        self.options_class = options
        self.config: Path | None = None
        self.typed: set[str] = set()
        named: set[str | int] = set(positional)
        if config:
            self.add_argument(
                "--config", action=ActionConfigFile, help="YAML of any of these options"
            )
        self.flags = set(_flags(options))
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
        parsed = self.parse_args(self._spelt(arguments))
        values = (
            self.instantiate(parsed).as_dict() if hasattr(self, "instantiate") else parsed.as_dict()
        )
        values.pop("config", None)
        options = self.options_class(**values)
        check_limits(options)
        return options

    def _spelt(self, arguments: Sequence[str]) -> list[str]:
        """Hyphens become the underscores of Python's names, and a flag without a value means true."""
        spelt, self.typed = [], {argument.partition("=")[0] for argument in arguments}
        for index, argument in enumerate(arguments):
            name, equals, value = argument.partition("=")
            if not name.startswith("--") or len(name) < 3:
                spelt.append(argument)
                continue
            key = name[2:].replace("-", "_")
            key = key + "_" if f"{key}_" in self._known() else key
            if key not in ("help", "print_config"):
                self._expect(key, name)
            following = arguments[index + 1] if index + 1 < len(arguments) else "--"
            spelt.append(f"--{key}{equals}{value}")
            if key in self.flags and not equals and following not in ("true", "false"):
                spelt.append("true")
            if key == "config":
                self._check_config(Path(value if equals else following))
        return spelt

    def _known(self) -> list[str]:
        return [
            string[2:]
            for action in self._actions
            for string in action.option_strings
            if string.startswith("--")
        ]

    def _expect(self, key: str, where: str, dashes: str = "--") -> None:
        """Refuses an option that does not exist with the nearest one that does."""
        if key not in self._known():
            near = difflib.get_close_matches(key, self._known(), 1)
            hint = (
                f"did you mean {dashes}{flag_name(near[0]) if dashes else near[0]}?"
                if near
                else "see --help"
            )
            raise InputError(f"{where}: no such option; {hint}")

    def _check_config(self, file: Path) -> None:
        """Refuses a configuration file that is unreadable or speaks of unknown options."""
        import yaml

        self.config = file
        try:
            content = yaml.safe_load(file.read_text())
        except OSError as error:
            raise InputError(
                f"--config {file}: {error.strerror}; give a YAML file of options"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f" at line {mark.line + 1}" if mark else ""
            raise InputError(
                f"--config {file}: is not YAML{place}; mend it or write a new one"
            ) from error
        if not isinstance(content, dict):
            raise InputError(f"--config {file}: holds no options; write lines such as 'epochs: 24'")
        for key in _keys(content, self._known()):
            self._expect(key, f"--config {file}: {key}", dashes="")

    def format_help(self) -> str:
        """The help with the flags as they are typed, and without the groups' own config files."""
        text = re.sub(
            r"\n  --[a-z_]+ CONFIG +Path to a configuration file\.", "", super().format_help()
        )
        return NAME.sub(lambda match: "--" + flag_name(match.group()[2:]), text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(str(message).split())
        required = re.match(r"the following arguments are required: (.*)", line)
        if required:
            missing = [
                name if name in self.positional else f"--{flag_name(name)}"
                for name in required[1].split(", ")
            ]
            line = f"{' and '.join(missing)} missing; the usage is {self.usage}"
        for pattern, wording in WORDINGS:
            line = re.sub(pattern, wording, line)
        option = NAME.match(line)
        if self.config and option and option.group().rstrip(":") not in self.typed:
            line = f"--config {self.config}: {line[2:]}"
        raise InputError(
            f"{NAME.sub(lambda match: '--' + flag_name(match.group()[2:]), line)} (see {self.prog} --help)"
        )


def _flags(options: type, prefix: str = "") -> Iterator[str]:
    """Names of the options that are true or false."""
    for name, kind in get_type_hints(options).items():
        if kind is bool:
            yield prefix + name
        elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from _flags(kind, f"{prefix}{name}.")


def _keys(content: Mapping[Any, Any], known: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Dotted names of all options in a configuration."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        group = any(other.startswith(f"{name}.") for other in known)
        if group and isinstance(value, dict):
            yield from _keys(value, known, f"{name}.")
        else:
            yield name


def _kinds(types: str) -> str:
    """Python types in words."""
    found = re.findall(r"<class '(\w+)'>|\b(tuple|dict|list)\[|typing\.Literal\[(.*?)\]", types)
    words = [
        KINDS.get(name or other, name or other) or choices.replace("'", "")
        for name, other, choices in found
    ]
    return " or ".join(words) or types


def _one_of(value: str, choices: str) -> str:
    names = [name.strip(" '\"") for name in choices.split(",")]
    near = difflib.get_close_matches(value, names, 1)
    return f"{value!r} is none of {', '.join(names)}" + (
        f"; did you mean {near[0]}?" if near else ""
    )


def _neither(value: str, types: str) -> str:
    return f"{value!r} is not {_kinds(types)}"


def _descriptions(options: type) -> dict[str, str]:
    """What the docstring's Args section says of each field."""
    found = re.findall(r"^ +([a-z_]+): (.+)$", options.__doc__ or "", re.MULTILINE)
    return dict(found)
