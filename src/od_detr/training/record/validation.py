"""Validation of the online detector and of its teacher: the `val/` and `stability/` columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from od_detr.detectors import DetectionTransformer
from od_detr.evaluation.scoring import Scorer
from od_detr.evaluation.stability import MatchingRecord
from od_detr.structures import Batch

ONLINE, TEACHER = "online", "teacher"
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AP_nms", "duplicates", "F1", "threshold")
TEACHER_COLUMNS = ("AP", "AP_nms", "duplicates")


class Validation:
    """Scores detectors on the validation set and compares each pass with the one before.

    Args:
        scorers: a scorer for each detector, by name: `ONLINE` and, if there is one, `TEACHER`.
    """

    def __init__(self, scorers: dict[str, Scorer]) -> None:
        self.scorers = scorers
        self.summaries: dict[str, dict[str, Any]] = {}
        self.records: dict[str, MatchingRecord] = {}

    def run(
        self, detectors: Mapping[str, DetectionTransformer], batches: Iterable[Batch]
    ) -> dict[str, float]:
        """Scores all detectors, in eval mode, on the same batches; returns the columns of a row."""
        for batch in batches:
            for name, scorer in self.scorers.items():
                scorer.add(detectors[name], batch)
        before, self.records = self.records, {}
        for name, scorer in self.scorers.items():
            self.summaries[name], self.records[name] = scorer.finish()
        return columns(self.summaries, self.records, before)

    @property
    def best(self) -> tuple[str, float]:
        """Name and AP of the detector with the highest AP of the last pass."""
        name = max(self.summaries, key=lambda name: self.summaries[name]["AP"])
        return name, self.summaries[name]["AP"]

    def state_dict(self) -> dict[str, Any]:
        """The matchings of the last pass: the next one is compared with them."""
        return {name: record.state_dict() for name, record in self.records.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the matchings of `state_dict`."""
        self.records = {name: MatchingRecord() for name in state}
        for name, record in self.records.items():
            record.load_state_dict(state[name])


def columns(
    summaries: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, MatchingRecord],
    before: Mapping[str, MatchingRecord],
) -> dict[str, float]:
    """The `val/` and `stability/` columns of a validation; `before` are the records of the last."""
    row = {f"val/{name}": summaries[ONLINE][name] for name in COLUMNS}
    if ONLINE in before:
        row |= _by_layer("instability", records[ONLINE].instability(before[ONLINE]))
    if TEACHER in summaries:
        online, teacher = records[ONLINE], records[TEACHER]
        row |= {f"val/teacher/{name}": summaries[TEACHER][name] for name in TEACHER_COLUMNS}
        if TEACHER in before:
            row |= _by_layer("teacher_instability", teacher.instability(before[TEACHER]))
        row |= _by_layer("consistency", online.consistency(teacher))
        row |= _by_layer("agreement", online.agreement(teacher))
    return row | {f"val/AP/{name}": ap for name, ap in summaries[ONLINE]["per_class"].items()}


def _by_layer(name: str, values: list[float]) -> dict[str, float]:
    """The final layer's value is the metric; the others carry the number of their layer."""
    layers = {f"stability/{name}/{layer}": value for layer, value in enumerate(values, 1)}
    return {f"stability/{name}": values[-1]} | layers
