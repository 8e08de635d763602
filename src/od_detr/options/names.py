"""Finds the option that a name means: its own, an earlier one, or one of another package."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping

from od_detr.errors import InputError
from od_detr.options.fields import Option, flag_name, groups_of, options_of, renamed
from od_detr.options.peers.words import ELSEWHERE

Naming = Callable[[str], str]


def as_flag(name: str) -> str:
    """How an option is named in messages about the command line: `--opt.backbone-lr`."""
    return f"--{flag_name(name)}"


def as_python(name: str) -> str:
    """How an option is named in messages about a call from Python: `opt_backbone_lr`."""
    return name.replace(".", "_")


def known_name(options: type, name: str) -> str | None:
    """The dotted name of the option called `name`, or None.

    Hyphens stand for underscores, and `opt_lr` for `opt.lr`. Earlier names are known too.
    """
    plain = name.replace("-", "_")
    spellings = [plain, f"{plain}_"] + [
        f"{each}.{plain.removeprefix(f'{each}_')}"
        for each in groups_of(options)
        if plain.startswith(f"{each}_")
    ]
    before = renamed(options)
    for spelling in spellings:
        if spelling in options_of(options):
            return spelling
        if spelling in before:
            return before[spelling]
    return None


def warn_if_renamed(given: str, name: str, naming: Naming) -> None:
    """Says so where an option was given by an earlier name.

    Args:
        given: what was given, without hyphens in front.
        name: the dotted name of the option that it means.
        naming: how the message names an option.
    """
    if re.sub("[-.]", "_", given).rstrip("_") != as_python(name).rstrip("_"):
        now = naming(name).rpartition(" ")[2]  # the file before it is named once
        print(
            f"warning: {naming(given)} is now called {now}; the old name will be removed in "
            "version 0.2",
            file=sys.stderr,
        )


def no_such_option(options: type, name: str, shown: str, naming: Naming) -> InputError:
    """The error for an unknown option, with the option that was probably meant.

    Args:
        options: dataclass of options.
        name: what was given, without hyphens in front.
        shown: what was given, as the message shows it.
        naming: how the message names an option.
    """
    plain = name.replace("-", "_").lower()
    known = options_of(options)
    group = groups_of(options).get(plain)
    if group is not None:
        members = [naming(each) for each in known if each.startswith(f"{group}.")]
        which = members[0] if len(members) == 1 else f"one of {', '.join(members)}"
        return InputError(f"{shown} is a group of options; give {which}")
    meant = _meant(known, plain)
    if meant:
        hint = f"did you mean {' or '.join(_shown(known[each], naming) for each in meant)}?"
    else:
        hint = ELSEWHERE.get(plain, "see --help")
    return InputError(f"{shown}: no such option; {hint}")


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The most similar of the words, or None if none is similar."""
    return next(iter(difflib.get_close_matches(word, list(words), 1)), None)


def _shown(option: Option, naming: Naming) -> str:
    """An option as a hint names it; one that is given without a name is not a flag."""
    bare = option.about.positional and naming is as_flag
    return f"{option.name.upper()}, given without a name" if bare else naming(option.name)


def _meant(known: Mapping[str, Option], name: str) -> list[str]:
    """The options that a wrong name may mean: a synonym, the last part of a name, or a typo."""
    groups = {each.partition(".")[0] for each in known if "." in each}
    tails = {re.sub(rf"^{group}[._]", "", name) for group in groups} | {name}
    synonyms = [each.name for each in known.values() if tails & set(each.about.known_as)]
    if name in ELSEWHERE and not synonyms:
        return []
    members = [each for each in known if each.rpartition(".")[2] == name]
    near = nearest(name, known)
    return synonyms or members or ([near] if near else [])
