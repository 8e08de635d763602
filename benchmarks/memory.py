"""Peak memory of a training step, distilled against plain: what PyTorch's allocator holds at most.

Every allocation and release that the profiler sees is added up, temporary ones inside of operators
too, on top of what lives from step to step: weights, the optimiser's two moments of each, and the
teacher.
"""

from __future__ import annotations

import copy
import gc
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.step import Step, large_detector, make_batch, training_step
from benchmarks.timing import Figure, cost, one_thread
from od_detr.detectors import DetectionTransformer


def measure(
    rounds: int = 1, image_sizes: tuple[int, int] = (640, 320), **sizes: Any
) -> dict[str, Figure]:
    """The figures of `od-detr benchmark memory`, the least of some rounds; one is enough, as it
    does not vary.

    What distillation adds hardly grows with the images: the teacher's weights and what the added
    queries leave for the backward pass. So its share is the larger, the smaller they are.
    """
    large, small = (peaks(size, rounds, sizes) for size in image_sizes)
    return {
        "distilled_over_baseline": cost(large["od"], large["baseline"], 1.25, "bytes"),
        "small_images_distilled_over_baseline": cost(small["od"], small["baseline"], 1.25, "bytes"),
    }


def peaks(image_size: int, rounds: int, sizes: dict[str, Any]) -> dict[str, int]:
    """Peak bytes of both recipes, two images a step."""
    detector, batch, found = large_detector(**sizes), make_batch(2, image_size, 80), {}
    for recipe, copies in (("od", 2), ("baseline", 1)):
        step = training_step(copy.deepcopy(detector), batch, recipe)
        found[recipe] = lasting_bytes(detector, copies) + min(
            peak_bytes(step) for _ in range(rounds)
        )
        del step
    return found


def lasting_bytes(detector: DetectionTransformer, copies: int) -> int:
    """Weights and buffers of so many detectors, and two moments of every trained weight."""
    held = sum(tensor.nbytes for tensor in (*detector.parameters(), *detector.buffers()))
    return copies * held + 2 * sum(
        weight.nbytes for weight in detector.parameters() if weight.requires_grad
    )


def peak_bytes(step: Step) -> int:
    """The most that a step allocates beyond what it finds; the profiler leaves out the release of
    older memory.
    """
    with one_thread():
        step()  # the first makes the optimiser's moments; its gradients are released by the next
        gc.collect()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            step()
    events = [
        event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    changes = torch.tensor(
        [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    )
    return int(changes.cumsum(0).max())


if __name__ == "__main__":
    print(measure())
