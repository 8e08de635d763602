"""The supervisions that a recipe is made of."""

from od_detr.objectives.auxiliary_groups import AuxiliaryGroups
from od_detr.objectives.matching_distillation import MatchingDistillation
from od_detr.objectives.objective import (
    Answer,
    LossWeights,
    Objective,
    Step,
    Taught,
    Terms,
    Truth,
    joined,
    total,
)
from od_detr.objectives.prediction_distillation import PredictionDistillation, QueryPriorAssignment
from od_detr.objectives.readings import (
    auxiliary_groups,
    matching_distillation,
    prediction_distillation,
)
from od_detr.objectives.set_prediction import ClassLoss, SetPrediction

__all__ = [
    "Answer",
    "AuxiliaryGroups",
    "ClassLoss",
    "LossWeights",
    "MatchingDistillation",
    "Objective",
    "PredictionDistillation",
    "QueryPriorAssignment",
    "SetPrediction",
    "Step",
    "Taught",
    "Terms",
    "Truth",
    "auxiliary_groups",
    "joined",
    "matching_distillation",
    "prediction_distillation",
    "total",
]
