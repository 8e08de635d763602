"""The cost at a large size, worked out from two small ones, is the cost that is measured there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from od_detr.options import TrainOptions
from od_detr.training.cost.passes import extrapolated, flops, saved_bytes
from od_detr.training.plan import assembled, planned


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deformable-detr-plus", "dino-4scale"])
def test_the_cost_of_a_large_image_follows_from_small_ones(
    model: str, options: Callable[..., TrainOptions]
) -> None:
    network = assembled(planned(options(model=model, num_levels=None))).network
    size = (520, 693)
    for cost in (lambda at: flops(network.detector, at), lambda at: saved_bytes(network, at)):
        assert extrapolated(cost, size) == pytest.approx(cost(size), rel=0.03)
