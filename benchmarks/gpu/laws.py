"""Part one: what must hold on a GPU as it holds on the CPU."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.inputs import DTYPES, attention_inputs
from benchmarks.gpu.runner import ROOT, Check, Figures
from benchmarks.gpu.scale import QUICK_SIZES, TINY, Scale, synchronise
from benchmarks.host_reads import reads_counted, watched_training_steps
from benchmarks.step import make_batch, training_step
from od_detr.architectures import ModelName
from od_detr.detectors import DetectionTransformer, build_detector
from od_detr.objectives import total
from od_detr.ops import attention_backend, deformable_sampling
from od_detr.options import TrainOptions
from od_detr.training.recipe import make_recipe
from od_detr.training.teacher import Teacher

GOLDEN_CASE = "case1"
STEPS = 3
# Largest ‖ours - exact‖ / ‖exact‖ of results and of the gradients of values, offsets and logits.
# A float32 place within a rounding error of a cell's border counts to the other cell, where the
# slope is another.
TOLERANCES = {
    "fp32": (1e-4, 1e-4, 2e-2, 1e-3),
    "bf16": (5e-3, 5e-3, 2e-2, 1e-3),
    "fp16": (1e-3, 1e-3, 2e-2, 1e-3),
}


def kernels(scale: Scale, site: str) -> Figures:
    """The operator against the reference in float64, forward and backward, in each precision."""
    figures: Figures = {"holds": True}
    for name, dtype in DTYPES.items():
        inputs = attention_inputs(scale.attention, site, dtype, scale.device)
        direction = torch.randn_like(deformable_sampling(*inputs).detach())
        ours = answer(inputs, direction)
        with attention_backend("reference"):
            exact = answer(tuple(map(doubled, inputs)), direction.double())
        errors = [relative_error(mine, theirs) for mine, theirs in zip(ours, exact, strict=True)]
        limits = TOLERANCES[name]
        figures[name] = errors
        figures["holds"] &= all(e <= limit for e, limit in zip(errors, limits, strict=True))
        del exact, ours
    return figures


def answer(inputs: tuple, direction: Tensor) -> list[Tensor]:
    """The result and the gradients of values, offsets and logits."""
    leaves = [inputs[0], inputs[3], inputs[4]]
    output = deformable_sampling(*inputs)
    return [output.detach(), *torch.autograd.grad(output, leaves, direction)]


def doubled(part: Any) -> Any:
    """In float64, as a leaf that wants a gradient if it did."""
    if not isinstance(part, Tensor):
        return part
    return part.detach().double().requires_grad_(part.requires_grad)


def relative_error(ours: Tensor, exact: Tensor) -> float:
    """‖ours - exact‖ / ‖exact‖ in float64."""
    return float((ours.double() - exact).norm() / exact.norm())


def golden(scale: Scale) -> Figures:
    """The recordings of the official implementations: predictions and losses, in float32."""
    conftest = load_file("golden_conftest", ROOT / "tests/golden/conftest.py")
    tests = load_file("golden_detectors", ROOT / "tests/golden/test_detectors.py")
    folders = sorted(file.parent for file in conftest.GOLDEN.glob("*/config.json"))
    figures: Figures = {"recordings": len(folders), "holds": True}
    for folder in folders:
        recording = conftest.Recording(folder)
        detector = recording.detector().to(scale.device)
        features = [each.to(scale.device) for each in recording.features()]
        detector.backbone.maps = features
        padding = recording.inputs["image_mask"].to(scale.device)
        with torch.no_grad():
            main = detector.decode(detector.encode_features(features, padding))["main"]
        wanted = recording.outputs["pred_boxes"].to(scale.device)
        error = float((main.predictions.boxes - wanted).abs().max())
        batch = tests.batch_of(recording, GOLDEN_CASE).to(scale.device)
        loss = total(tests.official_recipe(recording).losses(detector, batch))
        expected = recording.record("losses")[GOLDEN_CASE]["total"]
        figures[folder.name] = [error, abs(loss.item() / expected - 1)]
        figures["holds"] &= max(figures[folder.name]) < 5e-4
    return figures


def load_file(name: str, path: Path) -> ModuleType:
    """A module from a file that is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def small_detector(model: ModelName) -> DetectionTransformer:
    """A tiny detector whose predictions differ from one another, on the CPU."""
    torch.manual_seed(0)
    detector = build_detector(model, 5, **QUICK_SIZES, dropout=0.0)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return detector


def recipes(scale: Scale) -> Figures:
    """Losses of every recipe on every preset against those of the CPU.

    Denoising draws its noise on the device, so that its terms are only checked to be finite.
    """
    worst, where, finite, batch = 0.0, "", True, make_batch(2, 64, 5)
    for model, recipe in itertools.product(scale.presets, scale.recipes):
        detector = small_detector(model)
        here = losses(copy.deepcopy(detector), batch, recipe, model)
        there = losses(detector.to(scale.device), batch.to(scale.device), recipe, model)
        for name, value in here.items():
            finite &= bool(there[name].isfinite())
            if not name.startswith("denoising"):
                error = float(
                    (there[name].detach().cpu() - value.detach()).abs()
                    / value.detach().abs().clamp(min=1e-3)
                )
                worst, where = max((worst, where), (error, f"{model} {recipe} {name}"))
    return {"holds": finite and worst < 1e-3, "largest_error": worst, "at": where}


def losses(
    detector: DetectionTransformer, batch: Any, recipe: Any, model: ModelName
) -> dict[str, Tensor]:
    """The terms of one step before any training."""
    options = TrainOptions(data="", model=model, recipe=recipe)
    teacher = Teacher(detector) if options.distils else None
    torch.manual_seed(1)
    return make_recipe(options, detector, teacher).losses(detector.train(), batch)


def half_precision(scale: Scale, name: str) -> Figures:
    """Steps in bfloat16, or in float16 with scaled losses, leave weights finite and move them."""
    dtype, figures = DTYPES[name], {"holds": True}
    for model in scale.architectures:
        detector = small_detector(model).to(scale.device)
        before = [weight.detach().clone() for weight in detector.parameters()]
        options = TrainOptions(data="", model=model, recipe="od")
        recipe = make_recipe(options, detector, Teacher(detector))
        optimizer = torch.optim.AdamW(detector.train().parameters(), lr=1e-4)
        scaler = torch.amp.GradScaler(scale.device, init_scale=1024.0, enabled=name == "fp16")
        batch, values = make_batch(2, 64, 5).to(scale.device), []
        for _ in range(STEPS):
            with torch.autocast(scale.device, dtype):
                loss = total(recipe.losses(detector, batch))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            values.append(loss.item())
        finite = all(bool(weight.isfinite().all()) for weight in detector.parameters())
        moved = any(
            not torch.equal(old, new)
            for old, new in zip(before, detector.parameters(), strict=True)
        )
        figures[model] = values
        figures["holds"] &= finite and moved
    return figures


@contextmanager
def deterministic() -> Iterator[None]:
    """Only operators that give the same bits each time."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def repeatable(scale: Scale) -> Figures:
    """Two runs of some distilled steps under deterministic algorithms give the same weights."""
    batch, figures = make_batch(2, 64, 5).to(scale.device), {"holds": True}
    for model in scale.architectures:
        ends = []
        with deterministic():
            for _ in range(2):
                detector = small_detector(model).to(scale.device)
                step = training_step(detector, batch, "od", model)
                torch.manual_seed(0)
                for _ in range(STEPS):
                    step()
                ends.append([weight.detach().clone() for weight in detector.parameters()])
        figures[model] = sum(not torch.equal(a, b) for a, b in zip(*ends, strict=True))
        figures["holds"] &= figures[model] == 0
    return figures


def resumed(scale: Scale) -> Figures:
    """A run stopped after two epochs and resumed ends with the weights of one that was not."""
    with tempfile.TemporaryDirectory() as folder, working_in(folder), deterministic():
        straight, stopped = Path("straight"), Path("stopped")
        train(scale, straight, 3)
        train(scale, stopped, 2)
        train(scale, stopped, 3, "--resume")
        ends = [
            torch.load(run / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
            for run in (straight, stopped)
        ]
    parts = [
        name
        for name, value in ends[0].items()
        if torch.is_tensor(value) and not torch.equal(value, ends[1][name])
    ]
    return {"holds": not parts, "weights": len(ends[0]), "different": parts[:5]}


def step_reads(scale: Scale) -> Figures:
    """A step of a distilled recipe makes the host wait for nothing but the solved matching.

    Losses, backward, clipping, the optimizer and the teacher's update; CUDA reports any other
    wait.
    """
    batch, figures = make_batch(2, 64, 5).to(scale.device), {"holds": True, "places": []}
    for model in scale.architectures:
        step = training_step(small_detector(model).to(scale.device), batch, "od", model)
        for _ in range(STEPS):
            step()
        synchronise(scale.device)
        with reads_counted(scale.device) as reads:
            step()
        figures[model] = reads.count
        figures["holds"] &= reads.count == 0
        figures["places"] = sorted({*figures["places"], *reads.places})
    return figures


def trainer_reads(scale: Scale) -> Figures:
    """The same of whole steps of `od-detr train`: loading, callbacks, the progress bar and all."""
    with (
        tempfile.TemporaryDirectory() as folder,
        working_in(folder),
        watched_training_steps(scale.device, skip=2) as reads,
    ):
        train(scale, Path("run"), 2)
    found = {"steps": reads.steps, "reads_a_step": reads.most, "places": sorted(reads.places)}
    return {"holds": reads.most == 0, **found}


@contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Inside the block, `folder` is the current directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def train(scale: Scale, output: Path, epochs: int, *more: str) -> None:
    """Trains a tiny detector on scenes in the current folder."""
    from od_detr.cli import main
    from od_detr.data.scenes import render_scenes

    render_scenes(Path("scenes"), 16, 2, 64)
    backbone = f'{{"channels":{TINY["channels"]},"layers":{TINY["layers"]}}}'
    flags = {
        "--data": "scenes",
        "--output": str(output),
        "--epochs": str(epochs),
        "--recipe": "od",
        "--backbone": "resnet18",
        "--backbone-weights": "none",
        "--backbone-options": backbone,
        "--hidden-dim": "32",
        "--encoder-layers": "1",
        "--decoder-layers": "2",
        "--queries": "12",
        "--feedforward": "64",
        "--image-size": "64",
        "--batch-size": "4",
        "--workers": "0",
        "--device": scale.device,
        "--opt.drop": "1",
        "--ema.decay": "0.9",
        "--eval.every": "10",
    }
    if main(["train", *itertools.chain(*flags.items()), *more]):
        raise RuntimeError(f"training {output} failed")


def _check(name: str, run: Callable[..., Figures], seconds: float, *arguments: str) -> Check:
    return Check(name, partial(_called, run, arguments), seconds)


def _called(run: Callable[..., Figures], arguments: tuple, scale: Scale) -> Figures:
    return run(scale, *arguments)


CHECKS = (
    _check("kernels at the encoder", kernels, 10, "encoder"),
    _check("kernels at the decoder", kernels, 5, "decoder"),
    _check("golden recordings", golden, 10),
    _check("losses of all recipes", recipes, 15),
    _check("bf16 steps", half_precision, 5, "bf16"),
    _check("fp16 steps", half_precision, 5, "fp16"),
    _check("deterministic steps", repeatable, 10),
    _check("resumed run", resumed, 20),
    _check("host reads of a step", step_reads, 10),
    _check("host reads of the trainer's step", trainer_reads, 10),
)
