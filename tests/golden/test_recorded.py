"""The set of recorded numbers that is kept here, and the sampling of its gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.golden.reduce import SAMPLE, at_sample, reduce_model, sampled

RECORDED = Path(__file__).parent / "recorded"
MODELS = ("dab_deformable_detr", "deformable_detr_plus", "dino_4scale", "dino_5scale")


def test_the_kept_set_has_every_model_and_stays_below_six_megabytes() -> None:
    assert all((RECORDED / model / "config.json").is_file() for model in MODELS)
    sizes = [file.stat().st_size for file in RECORDED.rglob("*") if file.is_file()]
    assert sum(sizes) <= 6_000_000


@pytest.mark.parametrize("shape", [(SAMPLE,), (3, 5), (64, 40), (1,)])
def test_a_sample_holds_entries_of_its_gradient_and_the_largest_one(shape: tuple[int, ...]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mine, recorded = at_sample(gradient, sampled(gradient))
    assert torch.equal(mine, recorded)
    assert recorded.abs().max() == gradient.abs().max()
    assert recorded.numel() == min(gradient.numel(), SAMPLE)


def test_a_wrong_entry_of_a_sample_is_noticed() -> None:
    gradient = torch.ones(8, 40)
    recorded = sampled(gradient)
    mine, wanted = at_sample(2 * gradient, recorded)
    assert (mine != wanted).all()


def test_reducing_the_kept_set_changes_nothing_but_gradients(tmp_path: Path) -> None:
    source = RECORDED / "dino_4scale"
    reduce_model(source, tmp_path)
    for file in source.iterdir():
        if file.stem not in ("grads", "dn_a_grads"):
            assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name
