"""Names that people write differently are one class; others are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.doctor.conftest import Plants, picture

from od_detr.doctor.checks.classes import IMBALANCED, RARE, alike
from od_detr.doctor.diagnosis import Examination, diagnosed


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["Cat", "cat", "dog"], [["Cat", "cat"]]),
        (["traffic light", "TrafficLight", " traffic  light"], [[0, 1, 2]]),
        (["cat", "cats", "car"], []),
        (["Straße", "STRASSE"], [[0, 1]]),
        (["cat", "cat"], []),
    ],
)
def test_names_alike(names: list[str], groups: list) -> None:
    expected = [[names[each] if isinstance(each, int) else each for each in g] for g in groups]
    assert alike(names) == expected


def test_a_class_beside_one_of_a_hundred_times_its_boxes_is_found(
    plants: Callable[..., Plants],
) -> None:
    sick = plants(train=RARE, val=20)
    boxes = sick.documents["train"]["annotations"]
    few = [box for box in boxes if box["category_id"] == 3]
    many = [
        few[0] | {"id": 10_000 + n, "category_id": 1, "bbox": [1 + n % 40, 1 + n // 40, 9, 9]}
        for n in range(IMBALANCED * len(few))
    ]
    boxes += many
    data = sick.write()
    problems = {problem.code: problem for problem in diagnosed(data, Examination()).problems}
    assert any("'rod'" in example for example in problems["class-imbalance"].examples)
    assert "class-rare" not in problems


def test_a_set_without_a_training_split_may_be_there_to_evaluate_on(
    plants: Callable[..., Plants],
) -> None:
    data = plants(val=20, test=20).write()
    picture(99).save(data / "images" / "val" / "extra.jpg")
    diagnosis = diagnosed(data, Examination(image_size=48))
    problems = {problem.code: problem for problem in diagnosis.problems}
    assert problems.keys() == {"split-untrained", "image-unlisted"}
    note = problems["split-untrained"]
    assert (note.severity, note.examples) == ("note", ("only val and test",))
    assert all(word in note.kind.fix for word in ("evaluate", "--val-data", "to train"))
    (data / "train.json").write_text("[]")
    codes = [problem.code for problem in diagnosed(data, Examination()).errors]
    assert codes == ["annotations-unreadable"]
