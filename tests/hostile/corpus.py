"""All hostile inputs, and whether what came of one is as expected."""

from __future__ import annotations

import re

from tests.hostile.data_cases import data_cases
from tests.hostile.harness import Case, Outcome
from tests.hostile.option_cases import command_cases, option_cases, yaml_cases
from tests.hostile.weight_cases import weight_cases

CASES: list[Case] = [
    *data_cases(),
    *option_cases(),
    *yaml_cases(),
    *command_cases(),
    *weight_cases(),
]


def verdict(case: Case, found: Outcome) -> str:
    """What is not as expected; empty if all is."""
    if found.wrongs:
        return "; ".join(found.wrongs)
    if found.kind != case.expected:
        return f"is {found.kind}, not {case.expected}: {found.line}"
    if case.names and not re.search(case.names, found.line):
        return f"does not name {case.names!r}: {found.line}"
    return ""
