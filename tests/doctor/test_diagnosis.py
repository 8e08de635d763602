"""The doctor finds every fault that is there, and none that is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.doctor.conftest import Plants
from tests.doctor.faults import FAULTS, Expected

from od_detr.doctor.checks.fit import Model
from od_detr.doctor.diagnosis import Diagnosis, Examination, diagnosed

EXAMINATION = Examination(image_size=48, model=Model("dino-4scale", 50))


def is_found(expected: Expected, diagnosis: Diagnosis) -> bool:
    code, split, text = expected
    return any(
        text in example
        for problem in diagnosis.problems
        if problem.code == code and problem.split == split
        for example in problem.examples
    )


def test_a_sound_data_set_has_no_problem(plants: Callable[..., Plants]) -> None:
    data = plants(train=40, val=20, test=20).write()
    assert [problem.examples for problem in diagnosed(data, EXAMINATION).problems] == []


@pytest.mark.slow
def test_each_of_many_faults_among_500_images_is_found(plants: Callable[..., Plants]) -> None:
    sick = plants(train=400, val=60, test=40)
    expected = {name: plant(sick) for name, plant in FAULTS.items()}
    assert len(expected) >= 60
    diagnosis = diagnosed(sick.write(), EXAMINATION)
    missed = {name: each for name, each in expected.items() if not is_found(each, diagnosis)}
    assert missed == {}


def test_what_stops_a_training_comes_first_and_then_what_costs_most(
    plants: Callable[..., Plants],
) -> None:
    sick = plants(train=60, val=20)
    for name in ("no width", "transparent", "file empty", "few boxes"):
        FAULTS[name](sick)
    problems = diagnosed(sick.write(), EXAMINATION).problems
    severities = [problem.severity for problem in problems]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    costs = [problem.cost for problem in problems if problem.severity == "warning"]
    assert costs == sorted(costs, reverse=True)
    assert all(0 < cost < 1 for cost in costs)


def test_without_decoding_what_pixels_show_is_not_found(plants: Callable[..., Plants]) -> None:
    sick = plants(train=40, val=20)
    header, pixels = (FAULTS[name](sick) for name in ("file is a text", "dark"))
    examination = Examination(image_size=48, decode=False)
    diagnosis = diagnosed(sick.write(), examination)
    assert is_found(header, diagnosis)
    assert not is_found(pixels, diagnosis)
