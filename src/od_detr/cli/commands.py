"""The commands of `od-detr`."""

from __future__ import annotations

from od_detr.cli.benchmark import BenchmarkOptions, benchmark
from od_detr.cli.command import Command
from od_detr.cli.convert import ConvertOptions, convert
from od_detr.cli.convert_data import ConvertDataOptions, convert_data
from od_detr.cli.demo import DemoOptions, demo
from od_detr.cli.doctor import DoctorOptions, doctor
from od_detr.cli.env import EnvOptions, env
from od_detr.cli.evaluate import EvaluateOptions, evaluate
from od_detr.cli.export import ExportOptions, export
from od_detr.cli.predict import PredictOptions, predict
from od_detr.cli.reproduce import ReproduceOptions, reproduce
from od_detr.cli.train import TrainCommand, train

COMMANDS: dict[str, Command] = {
    "demo": Command(DemoOptions, demo),
    "train": Command(TrainCommand, train, reads_config=True, known_as=("fit", "finetune")),
    "evaluate": Command(EvaluateOptions, evaluate, known_as=("val", "test", "eval", "validate")),
    "predict": Command(PredictOptions, predict, known_as=("detect", "infer", "inference")),
    "doctor": Command(DoctorOptions, doctor, known_as=("check", "checkup", "analyze", "lint")),
    "convert": Command(ConvertOptions, convert),
    "convert-data": Command(ConvertDataOptions, convert_data),
    "export": Command(ExportOptions, export),
    "benchmark": Command(BenchmarkOptions, benchmark),
    "reproduce": Command(ReproduceOptions, reproduce),
    "env": Command(EnvOptions, env, known_as=("checks", "info", "version")),
}

# What people look for and this package does not have.
ABSENT = {
    "track": "tracking is not there; supervision's trackers take the result of Detector.predict",
    "tune": "there is no search for settings; 'od-detr train --help' shows what can be set",
    "report": "there is no page for a run; 'od-detr evaluate --figure FILE' draws its curves",
    "app": "there is no web page; 'od-detr predict' writes drawn copies",
}


def overview() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<12} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: od-detr COMMAND [options]",
            "",
            *lines,
            "",
            "Run 'od-detr COMMAND --help' for the options of a command.",
        ]
    )
