"""When a run distils, and how batches share an optimizer step."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
import torch

from od_detr.data.loading.batching import collate
from od_detr.errors import Interrupted
from od_detr.options import DistillOptions, EmaOptions, TrainOptions
from od_detr.structures import Batch, Share
from od_detr.training.fit import fit
from od_detr.training.module import Training
from od_detr.training.plan import assembled, planned
from od_detr.training.record.state import SECONDS

MODELS = ("deformable-detr-plus", "dab-deformable-detr", "dino-4scale")


def steps(epochs: int, steps_per_epoch: int, **distill) -> list[int]:
    """The steps at which such a run distils."""
    options = TrainOptions(data="data", epochs=epochs, distill=DistillOptions(**distill))
    count = range(epochs * steps_per_epoch)
    return [step for step in count if options.distils_at(step, steps_per_epoch)]


@pytest.mark.parametrize(
    ("distill", "wanted"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"start": 3}, [3, 4, 5, 6, 7]),
        ({"stop": 0.5}, [0, 1, 2, 3]),
        ({"stop": 1.0}, [0, 1]),
        ({"stop": 3.0}, [0, 1, 2, 3, 4, 5]),
        ({"stop": 0.0}, []),
        ({"every": 3}, [0, 3, 6]),
        ({"start": 1, "every": 2, "stop": 3.0}, [1, 3, 5]),
    ],
)
def test_the_steps_that_distil(distill, wanted) -> None:
    assert steps(4, 2, **distill) == wanted


class Step:
    """One optimizer step of four images of a tiny run, cut into batches in any way.

    Their numbers of objects differ: equal ones would prove nothing.
    """

    def __init__(self, chosen: TrainOptions) -> None:
        self.parts = assembled(planned(chosen), frozen=True)
        self.samples = [self.parts.train[index] for index in range(4)]
        assert len({len(sample.labels) for sample in self.samples}) > 1
        parts = self.parts
        self.training = Training(parts.fabric, parts.network, parts.options, parts.state)
        with torch.no_grad():  # a student that is its teacher would learn no prediction of it
            for parameter in parts.network.detector.parameters():
                parameter += 0.05 * torch.randn_like(parameter)

    def batches(self, sizes: Sequence[int]) -> list[Batch]:
        drawn = iter(self.samples)
        return [collate(list(islice(drawn, size))) for size in sizes]

    def gradient(self, batches: Sequence[Batch], share: Share) -> torch.Tensor:
        """That of the batches, as those of one rank."""
        for batch in batches:
            self.training.backward(batch, share, batch is batches[-1])
        found = [each.grad for each in self.parts.network.detector.parameters()]
        self.parts.network.zero_grad()
        return torch.cat([each.flatten() for each in found if each is not None])

    def terms(self, batches: int) -> dict[str, float]:
        """The loss terms that the last gradient of so many batches was made of."""
        log = self.training.state.log
        found = {name: float(value) / batches for name, value in log.sums.items()}
        log.clear()
        return found

    def whole(self) -> torch.Tensor:
        batches = self.batches([4])
        return self.gradient(batches, Share.of([batch.targets for batch in batches]))


@pytest.fixture
def step(options, model: str, recipe: str) -> Step:
    levels = 4 if model == "dino-4scale" else 3
    plain = {"augment": "none", "dropout": 0.0, "num_levels": levels}
    return Step(options(model=model, recipe=recipe, **plain))


def assert_same_gradient(split: torch.Tensor, whole: torch.Tensor) -> None:
    assert torch.cosine_similarity(whole, split, dim=0) >= 0.99999
    assert split.norm() / whole.norm() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [(1, 3), (2, 2), (1, 1, 2)])
@pytest.mark.parametrize("recipe", ["baseline", "od"])
@pytest.mark.parametrize("model", MODELS)
def test_batches_of_a_step_have_the_gradient_of_the_one_they_make(step: Step, cut) -> None:
    batches = step.batches(cut)
    share = Share.of([batch.targets for batch in batches])
    assert_same_gradient(step.gradient(batches, share), step.whole())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["baseline", "od"])
@pytest.mark.parametrize("model", MODELS[:1])
def test_batches_of_a_step_with_one_object_in_all_have_the_losses_of_one(step: Step) -> None:
    """Each batch counts for a share of an object then, in every term."""
    step.samples = [
        replace(each, boxes=each.boxes[:count], labels=each.labels[:count])
        for each, count in zip(step.samples, (1, 0, 0, 0), strict=True)
    ]
    batches = step.batches([1, 1, 1, 1])
    step.gradient(batches, Share.of([batch.targets for batch in batches]))
    split = step.terms(len(batches))
    step.whole()
    assert split == pytest.approx(step.terms(1), rel=1e-4, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["baseline", "od"])
@pytest.mark.parametrize("model", MODELS)
def test_ranks_that_share_a_step_have_the_gradient_of_one(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets are counted over all ranks, so averaged gradients are those of the whole batch.

    As in its original, DINO on each rank makes as many denoising groups as the fullest image there
    allows; here both ranks are told of the fullest image of all.
    """
    whole, counts = step.whole(), [len(sample.labels) for sample in step.samples]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count.fill_(sum(counts)))
    ranks = [
        step.gradient([batch], Share(1, len(batch.targets), max(counts)))
        for batch in step.batches([1, 3])
    ]
    # Fabric would average; unequal shares of a step count by their targets, not by their images.
    assert_same_gradient((ranks[0] + ranks[1]) / 2, whole)


@pytest.mark.slow
def test_a_run_that_stops_distilling_is_resumed_bit_for_bit(options, monkeypatch) -> None:
    """Stopped in the step between two that distil, before distillation ends."""
    distill = DistillOptions(every=2, stop=0.5)
    make = partial(options, epochs=2, distill=distill, ema=EmaOptions(share="backbone"))
    whole = fit(make(output=str(options().output) + "-whole")).rows
    backward = Training.backward

    def interrupted(self, batch, share, last):
        if self.state.step == 1:
            signal.raise_signal(signal.SIGINT)
        return backward(self, batch, share, last)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "backward", interrupted)
        with pytest.raises(Interrupted):
            fit(make())
    rows = fit(make(resume=True)).rows
    for row, wanted in zip(rows, whole, strict=True):
        assert {**row, SECONDS: 0} == {**wanted, SECONDS: 0}
    distilled = [any("prediction/" in key for key in row) for row in whole]
    assert distilled[0]
    assert not distilled[-1]


@pytest.mark.slow
def test_a_teacher_that_reads_the_students_maps_gives_them_no_gradient(options) -> None:
    chosen = options(ema=EmaOptions(share="backbone"), recipe="od", dropout=0.0)
    parts = assembled(planned(chosen))
    batch, student = collate([parts.train[0], parts.train[1]]), parts.network.detector
    recipe, teacher = parts.network.recipe, parts.network.teacher
    assert teacher is not None
    student.eval()
    _, taught = recipe.consult(student, batch)
    own = teacher.detector.encode(batch)
    with torch.no_grad():
        wanted = teacher.detector.encode_features(
            student.backbone(student.stem(batch)), batch.padding
        )
    assert taught is not None
    assert not taught.outputs["main"].predictions.logits.requires_grad
    assert torch.equal(taught.outputs["main"].queries[0].content, wanted.queries.content)
    assert own.memory.tokens.shape == wanted.memory.tokens.shape
