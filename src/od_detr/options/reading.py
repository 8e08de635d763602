"""Turns values from the command line, YAML or Python into options, through the same checks."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_origin, get_type_hints

from od_detr.errors import InputError
from od_detr.options.fields import Option, groups_of, options_of
from od_detr.options.names import (
    Naming,
    as_flag,
    as_python,
    known_name,
    nearest,
    no_such_option,
    warn_if_renamed,
)
from od_detr.options.peers.words import MEANT, VALUES_ELSEWHERE

Options = TypeVar("Options")


def from_values(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Options from the keyword arguments of a Python call, such as `{"opt": {"lr": 1e-4}}`.

    Nested mappings, dotted names, `opt_lr` and texts such as "1e-4" are accepted.

    Raises:
        InputError: an unknown name, with the nearest known one, or a value out of range.
    """
    given = flatten(options, values, as_python)
    return build(options, with_continued(options, given), as_python)


def with_continued(options: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by dotted name, above those of the run that they ask to continue, if they do.

    Raises:
        InputError: that run's `config.yaml` cannot be read.
    """
    find = getattr(options, "continued", None)
    file = find(values) if find else None
    if file is None:
        return dict(values)
    from od_detr.options.config_file import read_config

    return read_config(options, file) | dict(values)


def flatten(
    options: type, values: Mapping[Any, Any], naming: Naming, warn: bool = True
) -> dict[str, Any]:
    """Nested values by the dotted names of the options they are for; earlier names are translated.

    Args:
        options: the dataclass of the options.
        values: by any of their names.
        naming: how a message names an option.
        warn: whether to say which names are earlier ones.

    Raises:
        InputError: an unknown option, or a group that is not a mapping.
    """
    found: dict[str, Any] = {}
    spelled: list[tuple[str, str]] = []
    for given, value in _entries(options, values, naming):
        name = known_name(options, given)
        if name is None:
            raise no_such_option(options, given, naming(given), naming)
        if name in found:
            raise InputError(f"{naming(name)} is given twice")
        found[name] = value
        spelled.append((given, name))
    for given, name in spelled if warn else ():
        warn_if_renamed(given, name, naming)
    return found


def build(options: type[Options], values: Mapping[str, Any], naming: Naming) -> Options:
    """The dataclass from values by dotted name, each converted to its type and checked.

    Raises:
        InputError: a value is missing, has the wrong type or is out of range.
    """
    absent = missing(options, values)
    if absent:
        raise InputError(f"{' and '.join(naming(each.name) for each in absent)} missing")
    known = options_of(options)
    checked = {name: checked_value(known[name], value, naming) for name, value in values.items()}
    return _made(options, checked)


def missing(options: type, values: Mapping[str, Any]) -> list[Option]:
    """The options that need a value and have none."""
    known = options_of(options).values()
    return [each for each in known if each.default is MISSING and each.name not in values]


def check_limits(options: Any) -> None:
    """Refuses the first option of any dataclass of options that has a wrong type or range.

    Raises:
        InputError: naming the option as it is typed and what it must be.
    """
    for each in options_of(type(options)).values():
        value: Any = options
        for part in each.name.split("."):
            value = getattr(value, part)
        checked_value(each, value, as_flag)


def checked_value(option: Option, value: Any, naming: Naming) -> Any:
    """The value as the option's type, if it is within the option's range.

    Raises:
        InputError: naming the option and what it must be.
    """
    converted = _converted(option, value, naming(option.name))
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        _check_range(option, converted, naming(option.name))
    return converted


def _check_range(option: Option, value: int | float, name: str) -> None:
    about = option.about
    if not math.isfinite(value):
        raise InputError(f"{name} must be a finite number (got {value})")
    low = about.at_least is not None and value < about.at_least
    high = about.at_most is not None and value > about.at_most
    if low or high:
        why = f"; {about.because}" if about.because else ""
        raise InputError(f"{name} must be {option.span} (got {value}){why}")
    if about.cap is not None and value > about.cap:
        raise InputError(f"{name} must be at most {about.cap} (got {value})")
    if about.multiple_of and value % about.multiple_of:
        near = int(value // about.multiple_of * about.multiple_of)
        raise InputError(
            f"{name} must be a multiple of {about.multiple_of} (got {value}); try {near}"
        )


def _converted(option: Option, value: Any, name: str) -> Any:
    if option.may_be_none and (
        value is None or (isinstance(value, str) and value in _open_words(option))
    ):
        return None
    if option.choices:
        return _choice(option.choices, value, name)
    convert, wanted = CONVERSIONS[get_origin(option.plain_kind) or option.plain_kind]
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError) as error:
        shown = "null" if value is None else repr(value)
        raise InputError(f"{name} must be {wanted} (got {shown})") from error


def _open_words(option: Option) -> tuple[str, ...]:
    """Words that leave an option open; a text may be any other word."""
    return ("null", "auto") if option.plain_kind in (int, float) else ("null",)


def _choice(choices: tuple[str, ...], value: Any, name: str) -> str:
    word = str(value)  # YAML reads `precision: 32` as a number
    if word in choices:
        return word
    meant = MEANT.get(word)
    near = meant if meant in choices else nearest(word, choices)
    hint = f"; did you mean {near}?" if near else VALUES_ELSEWHERE.get(word, "")
    wanted = f"one of {', '.join(choices)}" if choices[1:] else choices[0]
    raise InputError(f"{name} must be {wanted} (got {str(value)!r}){hint}")


def _whole(value: Any) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)  # 1e2 is a whole number
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(value)
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(value)
    return float(value)


def _truth(value: Any) -> bool:
    word = str(value).lower() if isinstance(value, bool | str) else ""
    if word not in ("true", "false"):
        raise ValueError(value)
    return word == "true"


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | os.PathLike):
        raise TypeError(value)
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if not text.isprintable() and ("\0" in text or _has_lone_surrogate(text)):
        raise ValueError(value)
    return text


def _has_lone_surrogate(text: str) -> bool:
    """Whether no file or message could hold the text; undecodable bytes of file names can."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return True
    return False


def _structure(value: Any) -> Any:
    """A list or mapping that was typed on the command line, in YAML's notation."""
    if not isinstance(value, str):
        return value
    from od_detr.plain_yaml import parse_yaml

    return parse_yaml(value)


def _whole_numbers(value: Any) -> tuple[int, ...]:
    items = _structure(value)
    if not isinstance(items, list | tuple):
        raise TypeError(value)
    return tuple(_whole(item) for item in items)


def _texts(value: Any) -> list[str]:
    items = _structure(value) if isinstance(value, str) and value.startswith("[") else value
    items = [each.strip() for each in items.split(",")] if isinstance(items, str) else items
    if not isinstance(items, list | tuple):
        raise TypeError(value)
    return [_text(item) for item in items]


def _mapping(value: Any) -> dict[str, Any]:
    items = _structure(value)
    if not isinstance(items, Mapping) or not all(isinstance(key, str) for key in items):
        raise TypeError(value)
    return dict(items)


CONVERSIONS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    bool: (_truth, "true or false"),
    str: (_text, "one text, such as 'a,b', without NUL characters or lone surrogates"),
    tuple: (_whole_numbers, "a list of whole numbers such as [1, 2]"),
    list: (_texts, "a list of texts"),
    dict: (_mapping, "a mapping such as {channels: [32, 64]}"),
}


def _entries(options: type, values: Mapping[Any, Any], naming: Naming) -> Iterator[tuple[str, Any]]:
    """Each option's given name and value; what stands in groups follows one by one."""
    groups = groups_of(options)
    for key, value in values.items():
        name = str(key)
        if name not in groups:
            yield name, value
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", item) for inner, item in value.items())
        elif is_dataclass(value) and not isinstance(value, type):
            yield from (
                (f"{name}.{each.name}", getattr(value, each.name)) for each in fields(value)
            )
        else:
            shown = "null" if value is None else repr(value)
            member = next(each for each in options_of(options) if each.startswith(groups[name]))
            example = f"{{{member.partition('.')[2]}: ...}}"
            raise InputError(
                f"{naming(name)} is a group of options and must be a mapping such as {example} "
                f"(got {shown})"
            )


def _made(options: type[Options], values: Mapping[str, Any]) -> Options:
    """The dataclass, its groups made first."""
    hints = get_type_hints(options)
    chosen: dict[str, Any] = {}
    for name in {key.partition(".")[0] for key in values}:
        inner = {
            key.partition(".")[2]: value
            for key, value in values.items()
            if key.startswith(f"{name}.")
        }
        chosen[name] = hints[name](**inner) if inner else values[name]
    return options(**chosen)
