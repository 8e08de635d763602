"""The pyramid of feature maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from od_detr.nn.neck import Neck


@pytest.mark.parametrize("dim", [16, 32, 64])
def test_one_image_with_a_map_of_one_pixel_is_normalised_as_in_a_larger_batch(dim: int) -> None:
    """Torch's own module refuses this one case when a group has a single channel."""
    torch.manual_seed(0)
    norm = Neck([8], dim, 1).projections[0][1]
    assert isinstance(norm, nn.GroupNorm)
    for size in (1, 4):
        maps = torch.randn(2, dim, size, size)
        alone = torch.cat([norm(maps[:1]), norm(maps[1:])])
        assert torch.equal(alone, norm(maps))
        assert torch.equal(norm(maps), nn.GroupNorm.forward(norm, maps))
