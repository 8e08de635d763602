"""What a resumed run takes over of what it measured before."""

from __future__ import annotations

import pytest

from od_detr.training.nonfinite.guard import FiniteGuard
from od_detr.training.record.state import RunState
from od_detr.training.record.validation import Validation


def state(**data: str) -> RunState:
    known = {"order of training images": "a", "boxes of the validation images": "b"}
    return RunState(Validation({}), FiniteGuard(), data=known | data)


@pytest.mark.parametrize(
    ("other", "best", "without_gain"),
    [
        ("order of training images", False, 2),
        ("boxes of the validation images", True, 0),
    ],
)
def test_the_best_ap_counts_for_the_validation_set_it_was_measured_on(
    other: str, best: bool, without_gain: int
) -> None:
    """On harder images no AP may ever be as high again."""
    before, after = state(), state(**{other: "other"})
    before.rank_validation(0.6)
    before.rank_validation(0.5)
    after.load_state_dict(before.state_dict())
    assert after.rank_validation(0.45) is best
    assert after.without_gain == without_gain
