"""Writes docs/options.md from the options: `python -m od_detr.cli.reference > docs/options.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING

from od_detr.cli.commands import COMMANDS
from od_detr.cli.parsing.help import as_typed, usage
from od_detr.options.fields import Option, options_of

HEAD = """# Options

Every option of every command. This page is generated from the code:
`python -m od_detr.cli.reference > docs/options.md` writes it again, and a test compares the two.

- Flags, the keys of a YAML file (`--config FILE`) and the arguments of `Detector.fit` have the same
  names and pass the same checks. `--opt.lr 1e-4` is `opt: {lr: 1e-4}` in YAML, and `opt_lr=1e-4` or
  `opt={"lr": 1e-4}` in Python. Hyphens on the command line are underscores elsewhere.
- A flag on the command line wins over the same option in a file.
- A true-or-false option needs no value to be true: `--resume` is `--resume true`.
- **Resume** marks the options that a resumed run may change.
- Names that changed before version 0.1 are accepted with a warning until version 0.2.
"""


def page() -> str:
    """The whole page in Markdown."""
    parts = [HEAD]
    for name, command in COMMANDS.items():
        parts.append(f"## {name}\n\n{command.summary}\n\n`{usage(name, command.options)}`\n")
        options = list(options_of(command.options).values())
        for title in dict.fromkeys(each.group for each in options):
            if title:
                parts.append(f"### {title}\n")
            members = (each for each in options if each.group == title)
            parts.append("\n".join(_table(members, command.reads_config)) + "\n")
        former = [(old, each) for each in options for old in each.names_before]
        if former:
            parts.append("### Earlier names\n\n" + "\n".join(_former(former)) + "\n")
    return "\n".join(parts)


def _table(options: Iterable[Option], has_resume: bool) -> Iterator[str]:
    columns = ["option", "default", "values", "meaning", *(["resume"] if has_resume else [])]
    yield _row(columns)
    yield _row(["---"] * len(columns))
    for each in options:
        cells = [f"`{each.flag}`", _default(each), _values(each), each.about.help]
        yield _row([*cells, *(["yes" if each.about.may_change_on_resume else ""] * has_resume)])


def _former(names: Iterable[tuple[str, Option]]) -> Iterator[str]:
    yield _row(["before", "now"])
    yield _row(["---", "---"])
    for old, each in names:
        yield _row([f"`--{old.rstrip('_').replace('_', '-')}`", f"`{each.flag}`"])


def _default(option: Option) -> str:
    if option.default is MISSING:
        return "required"
    return option.about.shown or f"`{as_typed(option.default)}`"


def _values(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{each}`" for each in option.choices)
    multiple = option.about.multiple_of
    parts = [option.span, f"a multiple of {multiple}" if multiple else ""]
    return ", ".join(part for part in parts if part)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(page(), end="")
