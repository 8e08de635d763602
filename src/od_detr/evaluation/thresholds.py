"""Precision, recall and F1 of the detections above a threshold, and the threshold that is best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from od_detr.evaluation.pairing import Pairing

THRESHOLDS = np.arange(101) / 100
DIGITS = 4  # of the curves in a summary


@dataclass(frozen=True)
class Sweep:
    """Counts at each of some ascending thresholds (T), class by class (C).

    Attributes:
        right: detections that find an object.
        wrong: detections that do not, those in crowds aside.
        objects: objects to find.
    """

    right: Int64[np.ndarray, "C T"]
    wrong: Int64[np.ndarray, "C T"]
    objects: Int64[np.ndarray, " C"]

    @staticmethod
    def of(pairing: Pairing, thresholds: Float64[np.ndarray, " T"] = THRESHOLDS) -> Sweep:
        """Counts the detections with at least each threshold's score."""
        classes = len(pairing.truth.names)
        # The last threshold that a score reaches.
        reached = np.searchsorted(thresholds, pairing.score, side="right") - 1

        def counted(chosen: np.ndarray) -> np.ndarray:
            chosen = chosen & (reached >= 0)
            counts = np.zeros((classes, len(thresholds)), dtype=np.int64)
            np.add.at(counts, (pairing.category[chosen], reached[chosen]), 1)
            return np.cumsum(counts[:, ::-1], 1)[:, ::-1]

        found = pairing.found >= 0
        wanted = pairing.truth.category[~pairing.truth.crowd]
        return Sweep(
            counted(found),
            counted(~found & ~pairing.ignored),
            np.bincount(wanted, minlength=classes).astype(np.int64),
        )

    @property
    def pooled(self) -> Sweep:
        """The counts of all classes together, as of one class."""
        right, wrong = (each.sum(0, keepdims=True) for each in (self.right, self.wrong))
        return Sweep(right, wrong, self.objects.sum(keepdims=True))

    @property
    def precision(self) -> Float64[np.ndarray, "C T"]:
        """Share of the detections that find an object; 0 without detections."""
        return self.right / np.maximum(1, self.right + self.wrong)

    @property
    def recall(self) -> Float64[np.ndarray, "C T"]:
        """Share of the objects that are found; 0 without objects."""
        return self.right / np.maximum(1, self.objects)[:, None]

    @property
    def f1(self) -> Float64[np.ndarray, "C T"]:
        """Harmonic mean of precision and recall; 0 without detections and objects."""
        total = self.right + self.wrong + self.objects[:, None]
        return 2 * self.right / np.maximum(1, total)

    @property
    def best(self) -> Int64[np.ndarray, " C"]:
        """Place of each class's threshold with the highest F1, the lowest of several."""
        return self.f1.argmax(1)

    def curves(self, place: int) -> dict[str, list[float]]:
        """Precision, recall and F1 of a class over the thresholds, as plain data."""
        named = {"precision": self.precision, "recall": self.recall, "F1": self.f1}
        return {name: np.round(values[place], DIGITS).tolist() for name, values in named.items()}


def best_threshold(sweep: Sweep) -> float | None:
    """The one of the `THRESHOLDS` with the highest F1 over all classes together.

    None if nothing is found.
    """
    pooled = sweep.pooled
    place = int(pooled.best[0])
    return float(THRESHOLDS[place]) if pooled.right[0, place] else None


def at_threshold(pairing: Pairing, sweep: Sweep, threshold: float) -> dict[str, Any]:
    """What `threshold` gives: precision, recall and F1 of all classes together and of each.

    A class also has its number of `objects`, and its own `best_threshold` and `best_F1`. `curves`
    holds the three metrics over the thresholds 0, 0.01, ... 1.

    Args:
        pairing: the detections, and what they find.
        sweep: their counts at all `THRESHOLDS`.
        threshold: any score.
    """
    exact, names = Sweep.of(pairing, np.array([threshold], dtype=np.float64)), pairing.truth.names
    pooled, best = sweep.pooled, sweep.best

    def metrics(counts: Sweep, row: int) -> dict[str, Any]:
        return {
            "precision": float(counts.precision[row, 0]),
            "recall": float(counts.recall[row, 0]),
            "F1": float(counts.f1[row, 0]),
        }

    classes = {
        name: metrics(exact, row)
        | {
            "objects": int(sweep.objects[row]),
            "best_threshold": float(THRESHOLDS[best[row]]),
            "best_F1": float(sweep.f1[row, best[row]]),
        }
        for row, name in enumerate(names)
    }
    curves = {
        "threshold": THRESHOLDS.tolist(),
        "all": pooled.curves(0),
        "classes": {name: sweep.curves(row) for row, name in enumerate(names)},
    }
    return metrics(exact.pooled, 0) | {"classes": classes, "curves": curves}
