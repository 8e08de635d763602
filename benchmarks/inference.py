"""Detecting in one image: ours as `od-detr predict` runs it against transformers' eager model with
the same weights.

Ours starts from the uint8 image and ends with the best boxes in pixels, in bfloat16 where the
processor has it; transformers starts from a normalised image and ends with logits and boxes.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.step import large_detector, make_batch, training_step
from benchmarks.timing import Figure, cost, interleaved, speedup
from od_detr.detectors import DetectionTransformer, load_detector
from od_detr.detectors.saved import save_detector
from od_detr.inference.predictor import Predictor
from od_detr.integrations.weights.huggingface import to_huggingface

CLASSES = [f"class {index}" for index in range(80)]


def measure(rounds: int = 6, image_size: int = 640, **sizes: Any) -> dict[str, Figure]:
    """The figures of `od-detr benchmark inference`."""
    detector, batch = large_detector(**sizes).eval(), make_batch(1, image_size, len(CLASSES))
    model = to_huggingface(detector)
    images, mask = detector.normalise(batch.images, batch.padding), (~batch.padding).long()
    predictor = Predictor(detector, CLASSES)

    @torch.inference_mode()
    def transformers() -> None:
        model(pixel_values=images, pixel_mask=mask)

    trained = {
        recipe: Predictor(after_training(detector, recipe), CLASSES)
        for recipe in ("od", "baseline")
    }
    seconds = interleaved(
        {"ours": lambda: predictor.detect(batch), "transformers": transformers}, rounds
    )
    # These two run the same program, so that only noise is between them: more rounds.
    seconds |= interleaved(
        {name: lambda p=each: p.detect(batch) for name, each in trained.items()}, 3 * rounds
    )
    return {
        "speedup_over_transformers": speedup(seconds["ours"], seconds["transformers"], 2.5),
        "distilled_over_baseline": cost(seconds["od"], seconds["baseline"], 1.02),
    }


def after_training(detector: DetectionTransformer, recipe: str) -> DetectionTransformer:
    """The detector as it is saved and loaded again after a step of training by the recipe."""
    student = copy.deepcopy(detector)
    training_step(student, make_batch(2, 64, len(CLASSES)), recipe)()
    with tempfile.TemporaryDirectory() as folder:
        save_detector(student, Path(folder), CLASSES)
        return load_detector(Path(folder))[0]


if __name__ == "__main__":
    for key, figures in measure().items():
        print(key, figures)
