"""The text of `od-detr COMMAND --help`, made from what the options declare."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING
from typing import Any

from od_detr.options.fields import Option, options_of

WIDTH, COLUMN = 100, 29
VALUES = {int: "N", float: "X", str: "TEXT", tuple: "LIST", dict: "MAPPING", list: "LIST"}
CONFIG = ("--config FILE", "YAML file of options, such as the config.yaml of a run.")
HELP = ("--help", "Show this help.")
HELP_ALL = ("--help-all", "Show all options, including every switch of the method.")
DEBUG = ("--debug", "Show the traceback of an error.")


def usage(name: str, options: type) -> str:
    """The command with what it needs: `od-detr evaluate RUN --data DIR [options]`."""
    parts = [f"od-detr {name}"]
    for each in options_of(options).values():
        if each.about.positional:
            many = " ..." if each.plain_kind == list[str] else ""
            parts.append(f"{each.name.upper()}{many}")
        elif each.default is MISSING:
            parts.append(f"{each.flag} {metavar(each)}")
    return " ".join([*parts, "[options]"])


def help_page(
    name: str, options: type, summary: str, reads_config: bool, everything: bool = False
) -> str:
    """The help of a command.

    Args:
        name: the command.
        options: dataclass of its options.
        summary: what the command does.
        reads_config: whether it takes `--config`.
        everything: every option, not only those for every day.
    """
    known = list(options_of(options).values())
    everyday = [each for each in known if each.about.everyday]
    first = everyday or known
    lines = [f"usage: {usage(name, options)}", "", summary, "", "Options:"]
    lines += rows(each for each in first if each.default is MISSING or each.about.positional)
    lines += rows(each for each in first if not (each.default is MISSING or each.about.positional))
    others = [each for each in known if each not in first]
    if everything and others:
        lines += _sections(others)
    shared = [each for each in others if each.name == "json" and not everything]
    ending = [*((CONFIG,) if reads_config else ()), HELP, *((HELP_ALL,) if others else ()), DEBUG]
    lines += ["", "Other:", *rows(shared), *(line for pair in ending for line in row(*pair))]
    return "\n".join(lines)


def rows(options: Iterable[Option]) -> Iterator[str]:
    """The lines of several options."""
    for each in options:
        yield from row(heading(each), described(each))


def row(left: str, right: str) -> list[str]:
    """A heading in the left column and a text in the right one."""
    text = textwrap.wrap(right, WIDTH - COLUMN, break_on_hyphens=False)
    head = f"  {left}"
    if len(head) > COLUMN - 2:
        return [head, *(" " * COLUMN + line for line in text)]
    return [f"{head:<{COLUMN}}{text[0]}", *(" " * COLUMN + line for line in text[1:])]


def heading(option: Option) -> str:
    """The option as it is typed, with what stands for its value."""
    if option.about.positional:
        return option.name.upper()
    return option.flag if option.is_flag else f"{option.flag} {metavar(option)}"


def metavar(option: Option) -> str:
    """What stands for an option's value in the help."""
    if option.about.metavar or option.choices:
        return option.about.metavar or "NAME"
    kind = option.plain_kind
    return VALUES[getattr(kind, "__origin__", kind)]


def described(option: Option) -> str:
    """The help text with choices and default after its first sentence."""
    first, *rest = re.split(r"(?<!Eq)\. ", option.about.help, maxsplit=1)
    facts = "; ".join(part for part in (_choices(option.choices), default_of(option)) if part)
    sentence = first.rstrip(".") + (f" ({facts})." if facts else ".")
    return " ".join([sentence, *rest])


def default_of(option: Option) -> str:
    """The default as people read it: `default: 24`, or that a value is required."""
    if option.default is MISSING:
        return "" if option.about.positional else "required"
    if option.about.shown == "none" or (option.default is False and not option.about.shown):
        return ""
    return f"default: {option.about.shown or as_typed(option.default)}"


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _choices(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), *words[-1:]] if words[1:] else words)


def _sections(options: list[Option]) -> list[str]:
    """The options under the headings of their groups; those without a group come first."""
    lines: list[str] = []
    for title in dict.fromkeys(each.group for each in options):
        lines += ["", f"{title or 'More options'}:"]
        lines += rows(each for each in options if each.group == title)
    return lines
