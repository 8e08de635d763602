"""The supervisions a recipe is made of."""

from od_detr.objectives.auxiliary_groups import AuxiliaryGroups
from od_detr.objectives.denoising import Denoising
from od_detr.objectives.matching_distillation import MatchingDistillation
from od_detr.objectives.objective import Labels, LossWeights, Objective, Terms, total
from od_detr.objectives.prediction_distillation import PredictionDistillation, QueryPriorAssignment
from od_detr.objectives.set_prediction import ClassLoss, SetPrediction

__all__ = [
    "AuxiliaryGroups",
    "ClassLoss",
    "Denoising",
    "Labels",
    "LossWeights",
    "MatchingDistillation",
    "Objective",
    "PredictionDistillation",
    "QueryPriorAssignment",
    "SetPrediction",
    "Terms",
    "total",
]
