"""Options that mean nothing, or harm, without another one."""

from __future__ import annotations

from typing import Any

import pytest

from od_detr.errors import InputError
from od_detr.options import TrainOptions, from_values
from od_detr.training.setup.together import check_together

ALONE: list[tuple[dict[str, Any], str]] = [
    ({"ema.warmup": "exp"}, "--ema.warmup exp: .* --ema.warmup-steps"),
    ({"md.cond_own": True}, "--md.cond-own: .* --md.cond-iou"),
    ({"ag.stages": [2, 1, 2]}, r"--ag.stages: \[2, 1, 2\] names a stage twice"),
    ({"qfl.gamma": 0.5}, "--qfl.gamma 0.5: .* 0, or 1 or more"),
]


@pytest.mark.parametrize(("values", "line"), ALONE, ids=lambda each: str(each)[:20])
def test_what_has_no_effect_or_no_gradient_alone_is_refused(
    values: dict[str, Any], line: str
) -> None:
    with pytest.raises(InputError, match=f"^{line}"):
        check_together(from_values(TrainOptions, {"data": "x"} | values))


@pytest.mark.parametrize(
    "values",
    [
        {"ema.warmup": "exp", "ema.warmup_steps": 5},
        {"ema.warmup": "mean"},
        {"md.cond_own": True, "md.cond_iou": 0.5},
        {"ag.stages": [2, 1]},
        {"qfl.gamma": 0},
    ],
)
def test_with_the_other_it_is_accepted(values: dict[str, Any]) -> None:
    check_together(from_values(TrainOptions, {"data": "x"} | values))
