"""Laws of the encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from od_detr.nn.encoder import Encoder, EncoderLayer

DIM, LEVELS = 16, 2


@pytest.fixture
def encoder() -> Encoder:
    """Three layers with dropout, in training."""
    torch.manual_seed(0)
    layers = [EncoderLayer(DIM, 2, LEVELS, 2, 24, dropout=0.2) for _ in range(3)]
    for layer in layers:
        layer.self_attn.reset_parameters()
    return Encoder(layers, DIM, LEVELS).train()


@pytest.fixture
def pyramid() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, DIM, side, side, generator=generator) for side in (6, 3)]


def answer(encoder: Encoder, pyramid: list[Tensor]) -> tuple[list[Tensor], int]:
    """Tokens and all gradients, and how many numbers were kept for the backward pass."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    features = [feature.clone().requires_grad_() for feature in pyramid]
    padding = torch.zeros(2, 48, 48, dtype=torch.bool)
    padding[1, 30:] = True
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = encoder(features, padding).tokens
    leaves = [*features, *encoder.parameters()]
    return [tokens, *torch.autograd.grad(tokens.square().sum(), leaves)], kept


def test_recomputed_layers_give_the_same_bits_and_keep_less(
    encoder: Encoder, pyramid: list[Tensor]
) -> None:
    """Tokens and gradients, dropout included."""
    usual, kept = answer(encoder, pyramid)
    encoder.recompute = True
    again, kept_again = answer(encoder, pyramid)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(again, usual, strict=True))
    assert kept_again < kept / 3


def test_nothing_is_recomputed_without_gradients(encoder: Encoder, pyramid: list[Tensor]) -> None:
    encoder.recompute = True
    padding = torch.zeros(2, 48, 48, dtype=torch.bool)
    with torch.no_grad():
        assert not encoder(pyramid, padding).tokens.requires_grad
