"""The classification losses against torchvision's, each other and their own derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision import ops

from od_detr.criteria.losses import box_distances, focal_loss, quality_focal_loss


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(200, generator=torch.Generator().manual_seed(0)) * 4


@pytest.fixture
def labels() -> Tensor:
    return (torch.rand(200, generator=torch.Generator().manual_seed(1)) < 0.3).float()


@pytest.fixture
def qualities() -> Tensor:
    return torch.rand(200, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [0.25, 0.6, None])
def test_focal_loss_is_torchvisions(logits, labels, alpha, gamma) -> None:
    wanted = ops.sigmoid_focal_loss(logits, labels, -1 if alpha is None else alpha, gamma)
    assert_close(focal_loss(logits, labels, alpha, gamma), wanted)


@pytest.mark.parametrize("alpha", [0.25, None])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.0])
def test_quality_focal_loss_at_hard_labels_is_the_focal_loss(logits, labels, alpha, gamma) -> None:
    assert_close(
        quality_focal_loss(logits, labels, alpha, gamma), focal_loss(logits, labels, alpha, gamma)
    )


@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_quality_focal_loss_is_equation_2(logits, qualities, gamma) -> None:
    scores, t = logits.double().sigmoid(), qualities.double()
    wanted = -((t - scores).abs() ** gamma) * ((1 - t) * (1 - scores).log() + t * scores.log())
    assert_close(
        quality_focal_loss(logits, qualities, gamma=gamma), wanted.float(), rtol=1e-4, atol=1e-6
    )


def test_gradient_of_the_quality_focal_loss_is_its_derivative(logits, qualities) -> None:
    """By hand: d/dz [(t - s)^2 BCE] = (s - t)^3 + 2 (s - t) s (1 - s) BCE."""
    logits.requires_grad_()
    quality_focal_loss(logits, qualities).sum().backward()
    s, t = logits.detach().double().sigmoid(), qualities.double()
    entropy = -((1 - t) * (1 - s).log() + t * s.log())
    wanted = (s - t) ** 3 + 2 * (s - t) * s * (1 - s) * entropy
    assert_close(logits.grad, wanted.float(), rtol=1e-4, atol=1e-6)


def test_quality_focal_loss_is_least_where_the_score_is_the_quality(qualities) -> None:
    assert_close(quality_focal_loss(qualities.logit(), qualities), torch.zeros_like(qualities))
    assert (quality_focal_loss(qualities.logit() + 0.5, qualities) > 0).all()


@pytest.mark.parametrize("loss", [focal_loss, quality_focal_loss])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_extreme_logits_cost_and_push_finitely(loss, label) -> None:
    logits = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    values = loss(logits, torch.full((5,), label))
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad.isfinite().all()
    assert (values >= 0).all()
    assert values.max() > 1000


def test_box_distances_are_zero_at_the_target_only() -> None:
    boxes = torch.tensor([[0.4, 0.4, 0.2, 0.2], [0.5, 0.4, 0.2, 0.3]])
    l1, giou = box_distances(boxes, boxes)
    assert_close(torch.stack([l1, giou]), torch.zeros(2, 2))
    l1, giou = box_distances(boxes, boxes.flip(0))
    corners = ops.box_convert(boxes, "cxcywh", "xyxy")
    assert_close(l1, torch.full((2,), 0.2))
    assert_close(giou, ops.generalized_box_iou_loss(corners, corners.flip(0)), rtol=1e-4, atol=1e-5)
