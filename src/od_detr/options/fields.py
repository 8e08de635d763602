"""How an option is declared: its help text, range and rules stand in the metadata of its field.

The parser, the checks, `--help`, `config.yaml`, the rules of `--resume` and `docs/options.md` are
all derived from what is declared here. Only the standard library is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

REQUIRED: Any = MISSING
KEY = "option"


@dataclass(frozen=True)
class About:
    """What is known about an option besides its name, type and default.

    Args:
        help: one or two plain sentences for `--help` and the docs.
        at_least: smallest value that is accepted.
        at_most: largest value that is accepted.
        cap: largest value that could make sense on any machine; not shown in `--help`.
        multiple_of: the value must be a multiple of this number.
        because: what a value out of range would do, for the error message.
        shown: the default as people read it, where the value in the code is computed later.
        metavar: what stands for the value in `--help`.
        everyday: `--help` shows it; otherwise only `--help-all` does.
        positional: given without a name on the command line.
        resolved: None means that architecture or schedule decides; `config.yaml` holds the result.
        may_change_on_resume: a resumed run may have another value.
        per_run: describes this call and not the run, so that `config.yaml` does not hold it.
        in_run: the value is a file in a run's directory, whose `config.yaml` gives the options that
            the command line does not.
        is_path: a file or folder; `config.yaml` holds it as an absolute path.
        formerly: the name before version 0.1, accepted until version 0.2.
        known_as: names of the same thing in other packages, for hints.
    """

    help: str
    at_least: int | float | None = None
    at_most: int | float | None = None
    cap: int | float | None = None
    multiple_of: int | None = None
    because: str = ""
    shown: str = ""
    metavar: str = ""
    everyday: bool = False
    positional: bool = False
    resolved: bool = False
    may_change_on_resume: bool = False
    per_run: bool = False
    in_run: bool = False
    is_path: bool = False
    formerly: str = ""
    known_as: tuple[str, ...] = ()


def option(default: Any, help: str, **about: Any) -> Any:
    """A field of a dataclass of options. `REQUIRED` as default means that a value must be given.

    Args:
        default: the value, or a mapping, of which each instance gets a copy.
        help: one or two plain sentences.
        **about: see `About`.
    """
    metadata = {KEY: About(help, **about)}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def group(options: type, help: str, **about: Any) -> Any:
    """A field that holds a group of options; its options are named `group.option`."""
    return field(default_factory=options, metadata={KEY: About(help, **about)})


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Args:
        name: dotted Python name, such as `opt.backbone_lr`.
        kind: its type.
        default: its default, or `REQUIRED`.
        about: what was declared.
        group: what its group is for; empty if it is in none.
        names_before: earlier names, dotted.
    """

    name: str
    kind: Any
    default: Any
    about: About
    group: str = ""
    names_before: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The option as it is typed, `--opt.backbone-lr`; a positional one has its bare name."""
        return self.name if self.about.positional else f"--{flag_name(self.name)}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that are accepted, if it is a choice."""
        return get_args(self.plain_kind) if get_origin(self.plain_kind) is Literal else ()

    @property
    def plain_kind(self) -> Any:
        """The type without `| None`."""
        return next((kind for kind in _members(self.kind) if kind is not NoneType), NoneType)

    @property
    def may_be_none(self) -> bool:
        """Whether None is a value of its own."""
        return NoneType in _members(self.kind)

    @property
    def span(self) -> str:
        """The range of its values in words; empty if every value of the type is accepted."""
        least, most = self.about.at_least, self.about.at_most
        if least is None:
            return "" if most is None else f"at most {most}"
        return f"at least {least}" if most is None else f"between {least} and {most}"

    @property
    def is_flag(self) -> bool:
        """Whether it is true or false, so that the bare flag means true."""
        return self.kind is bool


@cache
def options_of(options: type) -> Mapping[str, Option]:
    """All options of a dataclass by dotted name, those of its groups included, in order."""
    return MappingProxyType({each.name: each for each in _walk(options)})


@cache
def groups_of(options: type) -> Mapping[str, str]:
    """The groups of a dataclass of options: present and earlier names to the present name."""
    hints = get_type_hints(options)
    groups = {
        each.name: each.metadata[KEY] for each in fields(options) if is_dataclass(hints[each.name])
    }
    before = {about.formerly: name for name, about in groups.items() if about.formerly}
    return MappingProxyType({name: name for name in groups} | before)


def renamed(options: type) -> dict[str, str]:
    """The present name for each earlier one, dotted."""
    return {old: each.name for each in options_of(options).values() for old in each.names_before}


def flag_name(name: str) -> str:
    """A Python name as it is typed: hyphens for underscores."""
    return name.rstrip("_").replace("_", "-")


def _walk(options: type) -> Iterator[Option]:
    hints = get_type_hints(options)
    for each in fields(options):
        about: About = each.metadata[KEY]
        kind = hints[each.name]
        if is_dataclass(kind):
            for inner in options_of(kind).values():  # type: ignore[arg-type]
                yield _in_group(each.name, about, inner)
        else:
            default = each.default if each.default_factory is MISSING else each.default_factory()
            before = (about.formerly,) if about.formerly else ()
            yield Option(each.name, kind, default, about, names_before=before)


def _in_group(name: str, group_about: About, inner: Option) -> Option:
    """An option of a group, seen from the dataclass that holds the group."""
    old_group = group_about.formerly or name
    before = {f"{old_group}.{old}" for old in (inner.name, *inner.names_before)}
    before |= {f"{name}.{old}" for old in inner.names_before}
    may_change = group_about.may_change_on_resume or inner.about.may_change_on_resume
    return Option(
        f"{name}.{inner.name}",
        inner.kind,
        inner.default,
        replace(inner.about, may_change_on_resume=may_change),
        group_about.help,
        tuple(sorted(before - {f"{name}.{inner.name}"})),
    )


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    is_union = get_origin(kind) is Union or type(kind).__name__ == "UnionType"
    return get_args(kind) if is_union else (kind,)
