"""The command line. Every verb imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.architectures import ModelName
from od_detr.errors import InputError
from od_detr.experiments.reproduce import ReproduceOptions, reproduce
from od_detr.options import TrainOptions
from od_detr.ranks import is_chief
from od_detr.run_files import RunFiles


@dataclass(frozen=True)
class DemoOptions:
    """Train a small detector on built-in scenes in minutes, evaluate it and draw what it finds.

    Args:
        output: the run's directory.
        seed: of scenes and training.
        json: print the result as one JSON object on the last line.
    """

    output: str = "runs/demo"
    seed: int = 0
    json: bool = False


@dataclass(frozen=True)
class TrainCommand(TrainOptions):
    """`od_detr.options.TrainOptions`, and how the result is told."""

    json: bool = False


# The help of the verb is the options' own, and one line more.
TrainCommand.__doc__ = (
    f"{TrainOptions.__doc__}    json: print the result as one JSON object on the last line.\n"
)


@dataclass(frozen=True)
class EvaluateOptions:
    """The 12 COCO figures and the AP of each class.

    Args:
        run: directory of a run, or of a saved detector.
        data: folder with images and COCO annotations.
        split: which part of it.
        weights: the best of the run, or the last online or teacher weights.
        image_size: short side; default that of training.
        batch_size: images at once.
        workers: processes that load images.
        device: auto, cpu, cuda or mps.
        precision: 32 as in training, bf16, or auto: bf16 where the processor has it.
        json: print the figures as one JSON object on the last line.
    """

    run: str
    data: str
    split: Literal["train", "val", "test"] = "val"
    weights: Literal["best", "online", "teacher"] = "best"
    image_size: int | None = None
    batch_size: int = 4
    workers: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "32", "bf16"] = "32"
    json: bool = False


@dataclass(frozen=True)
class PredictOptions:
    """Detect objects in images: drawn copies and one JSON file in COCO's result format.

    Args:
        run: directory of a run, or of a saved detector.
        sources: image files, folders of images, or globs.
        output: where pictures and detections.json go.
        threshold: lowest score that is drawn and written.
        weights: the best of the run, or the last online or teacher weights.
        device: auto, cpu, cuda or mps.
        precision: auto, 32 or bf16; auto is bf16 where the processor has it.
        compile: let torch.compile translate the backbone for a GPU; worth it for many images.
        json: print a summary as one JSON object on the last line.
    """

    run: str
    sources: list[str]
    output: str = "predictions"
    threshold: float = 0.3
    weights: Literal["best", "online", "teacher"] = "best"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "32", "bf16"] = "auto"
    compile: bool = False
    json: bool = False


@dataclass(frozen=True)
class ConvertOptions:
    """Official, detrex or Hugging Face weights to a detector, and back to Hugging Face.

    Args:
        checkpoint: a PyTorch or safetensors file, a Hugging Face directory, or with --to huggingface a run.
        model: the host.
        output: directory to write.
        num_classes: classes to detect; default those of the checkpoint.
        classes: their names.
        to: od-detr's own format or huggingface.
        json: print what was done as one JSON object on the last line.
    """

    checkpoint: str
    model: ModelName = "deformable-detr-plus"
    output: str = "converted"
    num_classes: int | None = None
    classes: list[str] | None = None
    to: Literal["od-detr", "huggingface"] = "od-detr"
    json: bool = False


@dataclass(frozen=True)
class BenchmarkOptions:
    """Measure this package beside its peers, in a source checkout.

    Args:
        figures: what to measure.
        rounds: how often the candidates take turns; the least time counts. Default the measurement's own.
        json: print the figures as one JSON object on the last line.
    """

    figures: Literal[
        "step", "attention", "matching", "ema", "loader", "inference", "memory", "startup", "growth"
    ]
    rounds: int | None = None
    json: bool = False


def demo(options: DemoOptions) -> dict[str, Any]:
    """od-detr demo"""
    from od_detr.experiments.demo import run_demo

    return run_demo(Path(options.output), options.seed)


def train(options: TrainCommand) -> dict[str, Any]:
    """od-detr train"""
    values = {key: value for key, value in vars(options).items() if key != "json"}
    if options.dry_run:
        return _announce(TrainOptions(**values))
    from rich.console import Console

    from od_detr.evaluation.coco import format_table
    from od_detr.training.fit import fit

    run = fit(TrainOptions(**values))
    for name, summary in run.summaries.items():
        Console().print(format_table(summary, name))
    facts = json.loads(RunFiles(run.directory).best_config.read_text())
    which = f"{facts['weights']} weights of epoch {facts['epoch']}, AP {100 * facts['AP']:.1f}"
    print(f"best: {which}, in {RunFiles(run.directory).best}")
    return {
        "AP": facts["AP"],
        "weights": facts["weights"],
        "run": str(run.directory),
        **run.rows[-1],
    }


def _announce(options: TrainOptions) -> dict[str, Any]:
    from od_detr.training.dry_run import dry_run

    cost = dry_run(options)
    print(
        f"{cost['images']} training and {cost['validation_images']} validation images, {len(cost['classes'])} classes"
    )
    millions, trained = cost["parameters"] / 1e6, cost["trainable_parameters"] / 1e6
    print(
        f"{options.model}, {options.backbone}: {millions:.1f} M parameters, {trained:.1f} M of them trained"
    )
    print(
        f"{cost['flops_per_image'] / 1e9:.1f} GFLOPs an image of {options.image_size} px (short side, 4:3)"
    )
    print(
        f"{cost['batch_bytes'] / 2**30:.1f} GiB for a step of {options.batch_size} images, in 32 bit"
    )
    return cost


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """od-detr evaluate"""
    from rich.console import Console

    from od_detr.evaluation.coco import format_table
    from od_detr.inference.evaluate import evaluate_run

    summary = evaluate_run(
        Path(options.run),
        Path(options.data),
        options.split,
        weights=options.weights,
        image_size=options.image_size,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        precision=options.precision,
    )
    Console().print(
        format_table(summary, f"{options.run}, {options.split} split, {options.weights} weights")
    )
    return summary


def predict(options: PredictOptions) -> dict[str, Any]:
    """od-detr predict"""
    from od_detr.inference.files import predict_files
    from od_detr.inference.predictor import Predictor, check_threshold

    check_threshold(options.threshold)
    predictor = Predictor.from_run(
        Path(options.run), options.weights, options.device, options.precision, options.compile
    )
    found = predict_files(predictor, options.sources, Path(options.output), options.threshold)
    print(
        f"{found['detections']} detections in {found['images']} images, drawn in {options.output}"
    )
    return found


def convert(options: ConvertOptions) -> dict[str, Any]:
    """od-detr convert"""
    from od_detr.integrations.weights.convert import convert as convert_weights
    from od_detr.integrations.weights.convert import convert_to_huggingface

    source, output = Path(options.checkpoint), Path(options.output)
    if options.to == "huggingface":
        done = convert_to_huggingface(source, output)
    else:
        done = convert_weights(source, options.model, output, options.num_classes, options.classes)
    print(done)
    return {
        "output": options.output,
        "taken": done.taken,
        "fresh": done.fresh,
        "unused": done.unused,
    }


def benchmark(options: BenchmarkOptions) -> dict[str, Any]:
    """od-detr benchmark"""
    import importlib

    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / f"{options.figures}.py").is_file():
        raise InputError(
            f"benchmark {options.figures}: the peers' side is in the source tree only; clone the repository and "
            "install it with pip install --editable '.[dev]'"
        )
    if options.rounds is not None and options.rounds < 1:
        raise InputError(f"--rounds {options.rounds}: at least one round is needed")
    from rich.console import Console
    from rich.table import Table

    sys.path.insert(0, str(root))
    measure = importlib.import_module(f"benchmarks.{options.figures}").measure
    figures = measure() if options.rounds is None else measure(rounds=options.rounds)
    table = Table(*("figure", "ours", "peer", "unit", "ratio", "goal"), box=None)
    for name, figure in figures.items():
        numbers = {key: f"{figure[key]:.4g}" for key in ("ours", "peer", "ratio", "goal")}
        table.add_row(
            name,
            numbers["ours"],
            numbers["peer"],
            figure["unit"],
            numbers["ratio"],
            numbers["goal"],
        )
    Console().print(table)
    return figures


VERBS: dict[str, tuple[Callable[[Any], dict[str, Any]], type, tuple[str, ...]]] = {
    "demo": (demo, DemoOptions, ()),
    "train": (train, TrainCommand, ()),
    "evaluate": (evaluate, EvaluateOptions, ("run",)),
    "convert": (convert, ConvertOptions, ("checkpoint",)),
    "predict": (predict, PredictOptions, ("run", "sources")),
    "benchmark": (benchmark, BenchmarkOptions, ("figures",)),
    "reproduce": (reproduce, ReproduceOptions, ("table",)),
}


def overview() -> str:
    """The verbs, a line each."""
    lines = [
        f"  {name:<10} {(options.__doc__ or '').splitlines()[0]}"
        for name, (_, options, _) in VERBS.items()
    ]
    return (
        "usage: od-detr VERB [options]\n\n"
        + "\n".join(lines)
        + "\n\nod-detr VERB --help tells a verb's options."
    )


def run(arguments: Sequence[str]) -> int:
    """Parses and runs one verb; returns the exit status: 0, or 4 where inputs were skipped."""
    import difflib

    if not arguments or arguments[0] in ("--help", "-h"):
        print(overview())
        return 0
    verb = arguments[0]
    if verb == "--version":
        from importlib.metadata import version

        print(version("od-detr"))
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        raise InputError(
            f"{verb}: no such verb; "
            + (f"did you mean {near[0]}?" if near else "see od-detr --help")
        )
    from od_detr.arguments import Parser

    command, options_class, positional = VERBS[verb]
    options = Parser(verb, options_class, positional, config=verb == "train").parse(arguments[1:])
    result = command(options)
    if options.json:
        print(json.dumps(result))
    return 4 if result.get("skipped") else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a defect of ours, 2 the user's input, 4 inputs skipped, 130 stopped by Ctrl-C after saving."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    beside = not is_chief()
    silence = contextlib.redirect_stdout(None) if beside else contextlib.nullcontext()
    try:
        with silence:
            return run([argument for argument in arguments if argument != "--debug"])
    except InputError as error:
        if debug:
            raise
        return _told(error, 2)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if type(error).__name__ == "Interrupted":  # by its name, or --help would import what trains
            return 0 if beside else _told(str(error), 130)
        if debug or not isinstance(error, FloatingPointError):
            raise
        return 1 if beside else _told(error, 1)


def _told(error: Exception | str, status: int) -> int:
    line = " ".join(str(error).split())
    print(line if isinstance(error, str) else f"error: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
