"""A recipe trains foreign detectors, refuses clashing names, and keeps no step alive."""

from __future__ import annotations

import ast
import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import od_detr
from od_detr.boxes import inverse_sigmoid
from od_detr.detectors import Encoded, QueryDetector, build_detector
from od_detr.objectives import Objective, PredictionDistillation, SetPrediction, total
from od_detr.options import TrainOptions
from od_detr.structures import (
    Batch,
    GroupOutput,
    Outputs,
    Predictions,
    QueryGroup,
    QuerySet,
    Targets,
)
from od_detr.training.recipe import Recipe, make_recipe
from od_detr.training.teacher import Teacher

OPTIONS = TrainOptions(data="", recipe="od")


class Toy(nn.Module):
    """A detector from outside the package: each query sees the image's mean colour only."""

    num_layers, num_queries, top_k = 2, 6, 3

    def __init__(self, dim: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.settings = {"dim": dim, "classes": classes}
        self.colour = nn.Linear(3, dim)
        self.content = nn.Embedding(self.num_queries, dim)
        self.anchors = nn.Embedding(self.num_queries, 4)
        self.update = nn.ModuleList(nn.Linear(dim, dim) for _ in range(self.num_layers))
        self.classes, self.boxes = nn.Linear(dim, classes), nn.Linear(dim, 4)

    def stem(self, batch: Batch, shares: str = "frozen") -> Any:
        return None

    def encode(self, batch: Batch, stem: Any = None, tokens: Any = None) -> Encoded:
        memory = self.colour(batch.images.float().mean((2, 3)) / 255)
        queries = (part.weight.expand(len(memory), -1, -1) for part in (self.content, self.anchors))
        content, anchors = queries
        return Encoded(memory, QuerySet(content, anchors.sigmoid()))

    def decode(
        self, encoded: Encoded, groups: Iterable[QueryGroup] = (), detach_memory: bool = False
    ) -> Outputs:
        main = QueryGroup("main", encoded.queries, own=True)
        return Outputs.of(self._decoded(encoded.memory, group) for group in (main, *groups))

    def _decoded(self, memory: Tensor, group: QueryGroup) -> GroupOutput:
        stages, logits, boxes = [group.queries], [], []
        for layer in self.update:
            content = layer(stages[-1].content + memory[:, None]).relu()
            logits.append(self.classes(content))
            boxes.append((inverse_sigmoid(stages[-1].anchors) + self.boxes(content)).sigmoid())
            stages.append(QuerySet(content, boxes[-1].detach()))
        predictions = Predictions(torch.stack(logits), torch.stack(boxes))
        return GroupOutput(group, tuple(stages), predictions)

    def own_groups(self, targets: Targets) -> list[QueryGroup]:
        return []

    def own_objectives(self, supervise: Callable[[str], Objective]) -> list[Objective]:
        return []


def make_batch(counts: tuple[int, ...] = (3, 0, 5)) -> Batch:
    images = torch.randint(256, (len(counts), 3, 64, 64), dtype=torch.uint8)
    boxes = 0.3 + 0.3 * torch.rand(sum(counts), 4)
    targets = Targets(boxes, torch.randint(3, (sum(counts),)), counts)
    return Batch(images, torch.zeros(len(counts), 64, 64, dtype=torch.bool), targets)


def test_a_detector_from_outside_is_distilled() -> None:
    torch.manual_seed(0)
    student = Toy()
    assert isinstance(student, QueryDetector)
    teacher = Teacher(student, decay=0.5)
    recipe = make_recipe(OPTIONS, student, teacher)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(2):
        before = [weight.detach().clone() for weight in student.parameters()]
        terms = recipe.losses(student, make_batch())
        assert {name.split("/")[0] for name in terms} == {"matching", "prediction", "auxiliary"}
        optimizer.zero_grad()
        total(terms).backward()
        optimizer.step()
        teacher.update(student)
        for weight, old in zip(student.parameters(), before, strict=True):
            assert weight.isfinite().all()
            assert not torch.equal(weight, old)


def test_two_groups_of_one_name_are_refused() -> None:
    student = Toy()
    recipe = Recipe([PredictionDistillation(), PredictionDistillation()], Teacher(student))
    with pytest.raises(ValueError, match="'prediction'"):
        recipe.losses(student, make_batch())


def test_two_terms_of_one_name_are_refused() -> None:
    recipe = Recipe([SetPrediction(), SetPrediction()])
    with pytest.raises(ValueError, match="'matching/class/1'"):
        recipe.losses(Toy(), make_batch())
    other = replace(SetPrediction(), name="again")
    assert len(Recipe([SetPrediction(), other]).losses(Toy(), make_batch())) == 12


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deformable-detr-plus", "dino-4scale"])
def test_no_step_is_kept_alive_by_a_cycle(model, monkeypatch) -> None:
    """With the garbage collector off, 20 steps leave only the last one's predictions reachable."""
    torch.manual_seed(0)
    sizes = {"hidden_dim": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "queries": 6}
    backbone = {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)}
    student = build_detector(model, 3, backbone="resnet18", backbone_options=backbone, **sizes)
    recipe = make_recipe(replace(OPTIONS, model=model), student, Teacher(student))
    made: list[weakref.ref] = []
    step = recipe.step

    def step_and_note(*arguments):
        taken = step(*arguments)
        for answer in (taken.student, taken.teacher):
            for output in answer.outputs.groups.values():
                made.append(weakref.ref(output.predictions))
                made.append(weakref.ref(output.predictions.logits))
        return taken

    monkeypatch.setattr(recipe, "step", step_and_note)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            each = len(made)
            total(recipe.losses(student, make_batch((2, 1)))).backward()
            each = len(made) - each
        alive = [reference for reference in made[:-each] if reference() is not None]
    finally:
        gc.enable()
    assert each
    assert alive == []


def test_copies_that_do_not_wait_are_made_in_one_place() -> None:
    """Elsewhere a tensor could be read before it has arrived on the host."""
    source = Path(od_detr.__file__).parent
    found = {
        file.relative_to(source).as_posix()
        for file in source.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "non_blocking"
    }
    assert found == {"transfers.py"}
