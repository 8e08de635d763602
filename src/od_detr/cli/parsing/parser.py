"""Turns the words of a command line into options. Each option of the dataclass is a flag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from od_detr.cli.parsing.help import usage
from od_detr.errors import InputError
from od_detr.options.fields import Option, options_of
from od_detr.options.names import as_flag, known_name, no_such_option, warn_if_renamed
from od_detr.options.reading import build, missing, with_continued
from od_detr.run_files import RunFiles


@dataclass
class Words:
    """The words of a command line, read from left to right."""

    left: list[str]

    def __iter__(self) -> Iterator[str]:
        while self.left:
            yield self.left.pop(0)

    def value(self, flag: str) -> str:
        """The word after a flag that needs a value."""
        if not self.left or self.left[0].startswith("--"):
            raise InputError(f"{flag} needs a value")
        return self.left.pop(0)

    def truth(self) -> str:
        """The word after a flag that is true or false; the bare flag means true."""
        given = self.left and self.left[0].lower() in ("true", "false")
        return self.left.pop(0) if given else "true"


@dataclass
class Given:
    """What a command line holds: options by dotted name, the files of --config, and bare words."""

    values: dict[str, Any] = field(default_factory=dict)
    configs: list[Path] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)


def parse(name: str, options: type, arguments: Sequence[str], reads_config: bool = False) -> Any:
    """The options of a command. A flag on the command line wins over the same one in a file.

    Args:
        name: the command.
        options: dataclass of its options.
        arguments: the words after the command.
        reads_config: whether `--config FILE` is accepted.

    Raises:
        InputError: one line that names the option and what it must be, or the nearest known one.
    """
    given = _read(name, options, arguments, reads_config)
    configs = [*_configs_of_runs(options, given), *given.configs]
    values = _from_files(options, configs) | given.values | _positional(options, given)
    _check_assignments(options, given)
    values = with_continued(options, values)
    absent = missing(options, values)
    if absent:
        names = [each.name.upper() if each.about.positional else each.flag for each in absent]
        verb = "is" if len(names) == 1 else "are"
        raise InputError(f"{' and '.join(names)} {verb} missing; usage: {usage(name, options)}")
    return build(options, values, lambda each: options_of(options)[each].flag)


def _read(command: str, options: type, arguments: Sequence[str], reads_config: bool) -> Given:
    given, words = Given(), Words(list(arguments))
    for word in words:
        if not word.startswith("--"):
            given.bare.append(word)
            continue
        flag, equals, value = word.partition("=")
        if reads_config and flag == "--config":
            given.configs.append(Path(value if equals else words.value(flag)))
            continue
        option = _option(command, options, flag)
        if not equals:
            value = words.truth() if option.is_flag else words.value(flag)
        given.values[option.name] = value
    return given


def _option(command: str, options: type, flag: str) -> Option:
    """The option that a flag names."""
    name = known_name(options, flag[2:])
    if name is None:
        raise no_such_option(options, flag[2:], flag, as_flag)
    if options_of(options)[name].about.positional:
        raise InputError(f"{flag}: give it without a name, as in {usage(command, options)}")
    warn_if_renamed(flag[2:], name, as_flag)
    return options_of(options)[name]


def _configs_of_runs(options: type, given: Given) -> Iterator[Path]:
    """`config.yaml` of each run in which a file was given for an option."""
    for name, value in given.values.items():
        option = options_of(options)[name]
        if option.about.in_run:
            if not Path(value).is_file():
                raise InputError(f"{option.flag} {value}: no such file; give a file in a run")
            yield RunFiles.of(Path(value).parent).config


def _from_files(options: type, files: Sequence[Path]) -> dict[str, Any]:
    """The checked values of configuration files; a later file wins."""
    if not files:
        return {}
    from od_detr.options.config_file import read_config

    values: dict[str, Any] = {}
    for file in files:
        values |= read_config(options, file, label="--config ")
    return values


def _positional(options: type, given: Given) -> dict[str, Any]:
    """Bare words by the options they stand for; the last one may take several."""
    left, values = list(given.bare), {}
    for option in options_of(options).values():
        if not option.about.positional or not left:
            continue
        if option.plain_kind == list[str]:
            values[option.name], left = left, []
        else:
            values[option.name] = left.pop(0)
    if left:
        raise _stray(options, left[0], given.values)
    return values


def _check_assignments(options: type, given: Given) -> None:
    """Refuses `model=x` as the value of an option without a name, unless there is such a file.

    Raises:
        InputError: how the option is written.
    """
    known = {name for each in options_of(options).values() for name in each.about.known_as}
    for word in given.bare:
        key, equals, _ = word.partition("=")
        is_option = known_name(options, key) is not None or key in known
        if equals and is_option and not Path(word).exists():
            raise _stray(options, word, given.values)


def _stray(options: type, word: str, given: Mapping[str, Any]) -> InputError:
    """The error for a word that belongs to no option, such as `epochs=3`, `-o` or a folder."""
    key, equals, value = word.lstrip("-").partition("=")
    name = known_name(options, key)
    if name is not None:
        end = f" {value.lower() if value in ('True', 'False') else value}" if equals else ""
        return InputError(f"{word}: options begin with --; write {as_flag(name)}{end}")
    if equals or word.startswith("-"):
        return no_such_option(options, key, word, as_flag)
    hint = "options begin with --"
    if "resume" in given and "output" not in given:
        hint = f"write --resume --output {word}"
    elif "data" in options_of(options) and "data" not in given and Path(word).is_dir():
        hint = f"write --data {word}"
    return InputError(f"{word}: not expected here; {hint}")
