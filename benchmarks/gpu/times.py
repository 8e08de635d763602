"""Part two: how long things take on a GPU and how much memory they need, next to their peers and
floors.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.inputs import CHANNELS, DTYPES, attention_inputs
from benchmarks.gpu.runner import Check, Figures
from benchmarks.gpu.scale import ARCHITECTURES, Scale, arithmetic, synchronise
from benchmarks.memory import peak_bytes
from benchmarks.step import Step, training_step, transformers_step
from benchmarks.timing import device_seconds
from od_detr.architectures import ModelName
from od_detr.detectors import compile_backbone
from od_detr.inference.predictor import Predictor
from od_detr.integrations.weights.huggingface import to_huggingface
from od_detr.ops import attention_backend, deformable_sampling
from od_detr.ops.sampling import sampling_locations

IMAGES = 2
L2_BYTES_A_SECOND = 5.5e12  # of an H100 or H200; an assumption of docs/performance.md
MEBI = 2**20
TILES = ((16, 4, 2), (16, 4, 4), (8, 2, 2), (16, 2, 2), (32, 4, 1), (32, 4, 2), (32, 8, 2))
CLASSES = [f"class {index}" for index in range(80)]


def ceilings(scale: Scale) -> Figures:
    """Bandwidth of copies within the L2 cache and through memory, and the rate of bf16 products."""
    megabytes = {"l2_copy": 16, "memory_copy": 2048} if scale.cuda else {"l2_copy": 1}
    figures: Figures = {}
    for name, size in megabytes.items():
        source = torch.randn(size * MEBI // 8, device=scale.device)
        target = torch.empty_like(source)
        seconds = timed(scale, partial(target.copy_, source), repeats=20)
        figures[f"{name}_TB_s"] = 2 * source.nbytes / seconds / 1e12
    side = 8192 if scale.cuda else 64
    left, right = (
        torch.randn(side, side, device=scale.device, dtype=torch.bfloat16) for _ in range(2)
    )
    seconds = timed(scale, partial(torch.mm, left, right), repeats=5)
    figures["bf16_TFLOP_s"] = 2 * side**3 / seconds / 1e12
    return figures


def timed(scale: Scale, work: Callable[[], object], repeats: int = 1) -> float:
    """Seconds of one thing."""
    return device_seconds({"": work}, scale.rounds, scale.device, repeats)[""]


def attention(scale: Scale, site: str) -> Figures:
    """The operator against `grid_sample` and, at the encoder, against the floor of its gathers.

    Every sampling point reads four cells of `CHANNELS` numbers. If no read hits the first cache,
    all of them come from the second, at `L2_BYTES_A_SECOND`.
    """
    figures: Figures = {}
    for name, dtype in DTYPES.items():
        inputs = attention_inputs(scale.attention, site, dtype, scale.device)
        candidates: dict[str, Callable[[], object]] = {}
        for side, backend in (("ours", "auto"), ("peer", "reference")):
            candidates[f"{side}_forward"] = partial(forward, inputs, backend)
            candidates[f"{side}_both"] = partial(both, inputs, backend)
        taken = device_seconds(candidates, scale.rounds, scale.device, repeats=5)
        gathered = inputs[4].numel() * 4 * CHANNELS * dtype.itemsize
        floor = gathered / L2_BYTES_A_SECOND
        figures[name] = {key: milli(value) for key, value in taken.items()} | {
            "forward_speedup": taken["peer_forward"] / taken["ours_forward"],
            "both_speedup": taken["peer_both"] / taken["ours_both"],
            "forward_over_floor": taken["ours_forward"] / floor,
            "floor": milli(floor),
        }
        del inputs, candidates
    return figures


def forward(inputs: tuple, backend: str) -> object:
    """Deformable sampling without gradients, by a backend."""
    with attention_backend(backend), torch.no_grad():
        return deformable_sampling(*inputs)


def both(inputs: tuple, backend: str) -> object:
    """Deformable sampling and its gradients, by a backend."""
    with attention_backend(backend):
        output = deformable_sampling(*inputs)
        return torch.autograd.grad(output.sum(), [inputs[0], inputs[3], inputs[4]])


def kernels_alone(scale: Scale) -> Figures:
    """The two kernels without what surrounds them: no softmax, no places, no launch of others."""
    return {name: kernel_times(scale, dtype) for name, dtype in DTYPES.items()}


def kernel_times(scale: Scale, dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of each, at the encoder, every query sampling around itself."""
    value, shapes, anchors, offsets, logits = attention_inputs(
        scale.attention, "encoder", dtype, scale.device
    )
    places = sampling_locations(shapes, anchors, offsets.detach()).requires_grad_()
    weights = logits.detach().flatten(3).softmax(-1).view_as(logits).requires_grad_()
    sizes = [size for shape in shapes for size in shape]
    backend = "triton" if scale.cuda else "cpu"
    attend = torch.ops.od_detr.deformable_attention
    call = partial(attend, value, sizes, places, weights, backend)
    output = call()
    direction, leaves = torch.randn_like(output), [value, places, weights]
    back = partial(torch.autograd.grad, output, leaves, direction, retain_graph=True)
    taken = device_seconds({"forward": call, "backward": back}, scale.rounds, scale.device, 5)
    return {key: milli(value) for key, value in taken.items()}


def tiles(scale: Scale) -> Figures:
    """The kernels with other numbers of queries, warps and points at once; the first is what is
    used.
    """
    if not scale.cuda:
        return {"skipped": "not in miniature"}
    from od_detr.ops import triton as kernels

    figures: Figures = {}
    for tile in (kernels.tile(CHANNELS), *TILES):
        with patch.object(kernels, "tile", lambda _, chosen=tile: chosen):
            figures["{} queries {} warps {} points".format(*tile)] = {
                name: kernel_times(scale, DTYPES[name]) for name in ("fp32", "bf16")
            }
    return figures


def milli(seconds: float) -> float:
    """Milliseconds, rounded."""
    return round(seconds * 1000, 4)


def peer(scale: Scale) -> Figures:
    """A plain step of Deformable-DETR+ against transformers' with the same weights."""
    figures: Figures = {}
    for name in ("tf32", "bf16", "32"):
        detector, batch = (
            scale.detector(ARCHITECTURES[0], backbone_options=None),
            scale.batch(IMAGES),
        )
        steps = {
            "ours": training_step(copy.deepcopy(detector), batch, "baseline"),
            "transformers": transformers_step(detector, batch),
        }
        with arithmetic(name, scale.device):
            taken = device_seconds(steps, scale.step_rounds, scale.device)
        figures[name] = {key: milli(value) for key, value in taken.items()} | {
            "speedup": taken["transformers"] / taken["ours"]
        }
        del steps, detector
    return figures


def distilled(scale: Scale, model: ModelName) -> Figures:
    """A distilled step over a plain one: time in each arithmetic, and peak memory."""
    if model not in scale.presets:
        return {"skipped": "not in miniature"}
    figures: Figures = {}
    detector, batch = scale.detector(model), scale.batch(IMAGES)
    half = {"ema.precision": "bf16"}
    for name in ("32", "tf32", "bf16"):
        steps: dict[str, Step] = {
            "baseline": training_step(copy.deepcopy(detector), batch, "baseline", model),
            "od": training_step(copy.deepcopy(detector), batch, "od", model),
        }
        if name != "bf16":
            steps["half"] = training_step(copy.deepcopy(detector), batch, "od", model, half)
        with arithmetic(name, scale.device):
            taken = device_seconds(steps, scale.step_rounds, scale.device)
        figures[name] = {key: milli(value) for key, value in taken.items()} | {
            f"{key}_ratio": value / taken["baseline"]
            for key, value in taken.items()
            if key != "baseline"
        }
        del steps
    with arithmetic("bf16", scale.device):
        peaks = {
            recipe: peak(scale, detector, batch, recipe, model) for recipe in ("baseline", "od")
        }
    figures["peak_MiB"] = {key: round(value / MEBI) for key, value in peaks.items()}
    figures["memory_ratio"] = peaks["od"] / peaks["baseline"]
    return figures


def peak(scale: Scale, detector: Any, batch: Any, recipe: Any, model: ModelName) -> int:
    """The most that the allocator gives out during a step, all weights and moments of one run
    included.
    """
    own = copy.deepcopy(detector)
    step = training_step(own, batch, recipe, model)
    if not scale.cuda:
        return peak_bytes(step)
    torch.cuda.empty_cache()
    others = sum(each.nbytes for each in (*detector.parameters(), *detector.buffers()))
    step()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() - others


def profiled(scale: Scale, model: ModelName) -> Figures:
    """The kernels that take most of a distilled step, and how busy the device is."""
    if model not in scale.presets:
        return {"skipped": "not in miniature"}
    step = training_step(scale.detector(model), scale.batch(IMAGES), "od", model)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * scale.cuda
    with arithmetic("bf16", scale.device):
        for _ in range(3):
            step()
        synchronise(scale.device)
        start = time.perf_counter()
        step()
        queued = time.perf_counter() - start
        synchronise(scale.device)
        whole = time.perf_counter() - start
        with profile(activities=activities) as profiler:
            step()
            synchronise(scale.device)
    rows = profiler.key_averages()
    spent = spent_by(rows, scale.cuda)
    busy = sum(milliseconds for milliseconds, _, _ in spent)
    largest = sorted(spent, reverse=True)[:25]
    key = "self_device_time_total" if scale.cuda else "self_cpu_time_total"
    print(rows.table(sort_by=key, row_limit=60, max_name_column_width=80), flush=True)
    return {
        "whole_ms": milli(whole),
        "host_ms": milli(queued),
        "device_busy_ms": round(busy, 3),
        "kernels": sum(count for _, count, _ in spent),
        "largest": [f"{took:.2f} ms {count}x {name}" for took, count, name in largest],
    }


def spent_by(rows: Iterable[Any], on_device: bool) -> list[tuple[float, int, str]]:
    """Milliseconds, calls and name of each kernel, or of each operator on a CPU.

    The profiler also counts a kernel's time to its operator, a row of the CPU, and to annotations.
    """
    if not on_device:
        return [(row.self_cpu_time_total / 1000, row.count, row.key[:70]) for row in rows]
    return [
        (row.self_device_time_total / 1000, row.count, row.key[:70])
        for row in rows
        if row.device_type != DeviceType.CPU and not row.is_user_annotation
    ]


def inference(scale: Scale) -> Figures:
    """Detecting in one image and in many: ours as `od-detr predict` runs it, and transformers'."""
    figures: Figures = {}
    detector = scale.detector(ARCHITECTURES[0], backbone_options=None).eval()
    predictor = Predictor(detector, CLASSES)
    model = to_huggingface(detector).to(scale.device)
    for images in (1, scale.many):
        batch = scale.batch(images)
        pixels = detector.normalise(batch.images, batch.padding)
        mask = (~batch.padding).long()
        candidates = {
            "ours": partial(predictor.detect, batch),
            "transformers": partial(pure, model, pixels, mask),
            "transformers_bf16": partial(pure, model, pixels, mask, True),
        }
        taken = device_seconds(candidates, scale.step_rounds, scale.device)
        figures[f"batch_{images}"] = {key: milli(value) for key, value in taken.items()} | {
            "speedup": taken["transformers"] / taken["ours"],
            "images_a_second": images / taken["ours"],
        }
    return figures


@torch.inference_mode()
def pure(model: Any, pixels: torch.Tensor, mask: torch.Tensor, half: bool = False) -> object:
    """Transformers' model as it is called, in bfloat16 if so asked."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=half):
        return model(pixel_values=pixels, pixel_mask=mask)


def compiled(scale: Scale) -> Figures:
    """The compiled backbone against the eager one: inference, and a plain training step in bf16."""
    detector, batch = scale.detector(ARCHITECTURES[0]), scale.batch(IMAGES)
    predictors = {"eager": Predictor(detector, CLASSES)}
    options = {} if scale.cuda else {"backend": "eager"}
    predictors["compiled"] = Predictor(detector, CLASSES)
    compile_backbone(predictors["compiled"].detector, **options)
    single, start = scale.batch(1), time.perf_counter()
    predictors["compiled"].detect(single)  # compiles
    synchronise(scale.device)
    compiling = time.perf_counter() - start
    taken = device_seconds(
        {name: partial(each.detect, single) for name, each in predictors.items()},
        scale.step_rounds,
        scale.device,
    )
    figures: Figures = {"inference": {key: milli(value) for key, value in taken.items()}}
    figures["inference_seconds_to_compile"] = round(compiling, 1)
    trained = copy.deepcopy(detector)
    compile_backbone(trained, **options)
    steps = {
        "eager": training_step(detector, batch, "baseline"),
        "compiled": training_step(trained, batch, "baseline"),
    }
    with arithmetic("bf16", scale.device):
        taken = device_seconds(steps, scale.step_rounds, scale.device)
    figures["step"] = {key: milli(value) for key, value in taken.items()}
    return figures


CHECKS = (
    Check("ceilings", ceilings, 5),
    Check("attention at the encoder", lambda scale: attention(scale, "encoder"), 10),
    Check("attention at the decoder", lambda scale: attention(scale, "decoder"), 5),
    Check("kernels alone", kernels_alone, 5),
    Check("distilled deformable-detr-plus", lambda scale: distilled(scale, ARCHITECTURES[0]), 15),
    Check("step against transformers", peer, 20),
    Check("a step's profile", lambda scale: profiled(scale, ARCHITECTURES[0]), 10),
    Check("inference", inference, 10),
    Check("distilled dino-4scale", lambda scale: distilled(scale, ARCHITECTURES[2]), 20),
    Check("distilled dab-deformable-detr", lambda scale: distilled(scale, ARCHITECTURES[1]), 15),
    Check("profile of dino-4scale", lambda scale: profiled(scale, ARCHITECTURES[2]), 10),
    Check("tiles of the kernels", tiles, 50),
    Check("compiled", compiled, 60),
)
