"""Every switch of the method against a loop-by-loop transcription of its rule: losses and
gradients.

What is compared is the recipe that the options make, so that the options' way to the objectives is
checked too.
"""

from __future__ import annotations

import typing
from dataclasses import fields
from functools import cache

import pytest
import torch
from tests.objectives.steps import (
    COUNTS,
    DAB,
    DEFORMABLE,
    DINO,
    SEEDS,
    compare,
    name_of,
    options,
    take_step,
)

from od_detr.objectives import total

MD = [
    *({"md.layer": value} for value in ("last", "final_only")),
    *({"md.same_class": value} for value in ("max", "teacher")),
    {"md.teacher_only": False},
    {"md.cls_norm": "num_pos"},
    {"md.reg": False},
    *({"md.wd": value} for value in (0.0, 1.0)),
    *({"md.cost": value} for value in ("teacher", "own", "teacher_pair")),
    {"md.wd_cls": True},
    {"md.wd_cls": True, "md.wd_cls_mode": "target"},
    {"md.wd_cls": True, "md.teacher_only": False, "md.cost": "teacher_pair"},
    {"md.wd_cls": True, "md.wd": 0.0},
    {"md.cond_iou": 0.5},
    {"md.cond_iou": 0.5, "md.cond_own": True},
    {"md.cond_iou": 0.5, "md.same_class": "teacher"},
    {"md.cond_iou": 0.5, "md.cond_own": True, "md.same_class": "max"},
    {"qfl.loss": "focal"},
    {"qfl.loss": "focal", "qfl.alpha": 0.4, "qfl.gamma": 1.5},
    {"qfl.loss": "focal", "md.cond_iou": 0.5, "md.reg": False},  # Conditional MD
    {
        "qfl.loss": "focal",
        "md.cond_iou": 0.5,
        "md.cond_own": True,
        "md.same_class": "max",
    },  # StageInteractor's rule
    {"md.layer": "last", "md.cost": "own", "md.same_class": "max"},
    {"md.layer": "final_only", "md.cost": "teacher", "md.wd_cls": True},
]
PD = [
    {"pd.tood": False},
    {"pd.tood_norm": True},
    {"pd.listen2stu": False},
    {"pd.iou_from": "main"},
    {"pd.cls_scope": "matched"},
    {"pd.other_entries": "zero"},
    *({"pd.norm": value} for value in ("sum_w", "sum_y", "queries")),
    *({"pd.reg_unmatched": value} for value in ("max_score", "one")),
    {"pd.tood": False, "pd.listen2stu": False, "pd.reg_unmatched": "one"},  # naive distillation
    {"pd.tood": False, "pd.listen2stu": False, "pd.reg_unmatched": "one", "pd.norm": "queries"},
    {"pd.tood": False, "pd.other_entries": "zero", "pd.norm": "sum_w"},
    {"qfl.gamma": 1.5},
    {"query_prior.on": True},
    {"query_prior.on": True, "query_prior.match": "rematch"},
]
AG = [
    *({"ag.stages": value} for value in ((1,), (2,))),
    *({"ag.duplicates": value} for value in ("keep", "disjoint")),
    {"ag.include_matched": True},
    {"ag.include_matched": True, "ag.duplicates": "keep"},
    {"ag.include_matched": True, "ag.duplicates": "disjoint"},
    {"ag.max_queries": 3},
    {"ag.max_queries": 2, "ag.duplicates": "keep"},
    {"ag.max_queries": 3, "ag.duplicates": "disjoint"},
    *({"ag.match": value} for value in ("original", "rematch")),
    {"ag.reduce": "sum"},
    {"ag.weight": 0.5},
    {"md.cls_norm": "num_pos"},
    {"md.cls_norm": "num_pos", "ag.reduce": "sum"},
    {"md.cond_iou": 0.5, "md.wd_cls": True},
]
ARCHITECTURES = [
    {"qfl.class_weight": 3.0},
    {"qfl.alpha": 0.25},
    {"qfl.gamma": 1.5},
    {"encoder.loss": "focal"},
    {"encoder.md": True},
    {"denoising.loss": "focal"},
    {"match.cost": "stable"},
]
SETTINGS = [
    *(("md", DEFORMABLE, setting) for setting in MD),
    *(("md+pd", DEFORMABLE, setting) for setting in PD),
    *(("md+ag", DEFORMABLE, setting) for setting in AG),
    *(("md", DINO, setting) for setting in ARCHITECTURES),
]


@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        *((recipe, DINO) for recipe in ("baseline", "qfl", "md", "md+pd", "md+ag", "od")),
        *((recipe, model) for recipe in ("baseline", "od") for model in (DEFORMABLE, DAB)),
    ],
)
def test_every_recipe_is_its_rule(encoded_batches, make_targets, recipe, model) -> None:
    for seed in range(len(COUNTS)):
        compare(take_step(encoded_batches, options(recipe, model, {}), seed, make_targets))


@pytest.fixture(scope="module")
def usual_loss(encoded_batches, make_targets):
    """The loss without any switch set."""
    return cache(
        lambda recipe, model, seed: total(
            take_step(encoded_batches, options(recipe, model, {}), seed, make_targets).terms
        )
    )


@pytest.mark.slow(shapes=True)
@pytest.mark.parametrize(("recipe", "model", "setting"), SETTINGS, ids=name_of)
def test_every_switch_is_its_rule_and_matters(
    encoded_batches, make_targets, usual_loss, recipe, model, setting
) -> None:
    matters = setting == {
        "md.cost": "teacher_pair"
    }  # which the student's cost always comes to, see below
    for seed in range(SEEDS):
        if seed >= len(COUNTS) and matters:
            break
        step = take_step(encoded_batches, options(recipe, model, setting), seed, make_targets)
        matters |= bool((total(step.terms) - usual_loss(recipe, model, seed)).abs() > 1e-4)
        if seed < len(COUNTS):
            compare(step)
    assert matters


def test_the_students_cost_always_weighs_the_teachers_query_down(
    encoded_batches, make_targets, usual_loss
) -> None:
    """A cheaper free query would have been matched, so Eq. 4 under the student's cost has none."""
    for seed in range(SEEDS):
        step = take_step(
            encoded_batches,
            options("md", DEFORMABLE, {"md.cost": "teacher_pair"}),
            seed,
            make_targets,
        )
        assert torch.equal(total(step.terms), usual_loss("md", DEFORMABLE, seed))


def test_every_value_of_every_switch_is_tried() -> None:
    tried = {(name, value) for _, _, setting in SETTINGS for name, value in setting.items()}
    elsewhere = {
        "pd.position",
        "pd.anchors",
        "ag.anchors",
        "ag.position",
    }  # what groups start from, below
    for group in ("md", "pd", "query_prior", "ag", "encoder", "denoising", "qfl"):
        switches = getattr(options("od", DINO, {}), group)
        hints = typing.get_type_hints(type(switches))
        for switch in fields(switches):
            name, default = f"{group}.{switch.name}", getattr(switches, switch.name)
            values = {v for known, v in tried if known == name}
            if name in elsewhere:
                continue
            assert values - {default}, name
            if typing.get_origin(hints[switch.name]) is typing.Literal:
                assert values | {default} == set(typing.get_args(hints[switch.name])), name
