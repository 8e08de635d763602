"""Every hostile input ends as its table says: nothing changed, nothing run, no network."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.hostile.corpus import CASES, verdict
from tests.hostile.harness import Case, outcome

ROWS = [
    pytest.param(
        case,
        id=case.title,
        marks=pytest.mark.xfail(strict=True, reason=case.open_issue) if case.open_issue else (),
    )
    for case in CASES
]


def test_there_are_at_least_250_inputs_and_each_has_its_own_title() -> None:
    assert len({case.title for case in CASES}) == len(CASES)
    assert len(CASES) >= 250


@pytest.mark.slow
@pytest.mark.parametrize("case", ROWS)
def test_a_hostile_input_ends_as_expected(case: Case, material: Path, tmp_path: Path) -> None:
    assert verdict(case, outcome(case, material, tmp_path / "case")) == ""
