"""`od-detr convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.architectures import ModelName
from od_detr.cli.command import json_option
from od_detr.options.fields import REQUIRED, option


@dataclass(frozen=True)
class ConvertOptions:
    """Convert official, detrex or Hugging Face weights to a detector, or a run to Hugging Face."""

    checkpoint: str = option(
        REQUIRED,
        "A PyTorch or safetensors file, or a Hugging Face folder. With --to huggingface: a run.",
        positional=True,
        known_as=("weights",),
    )
    model: ModelName = option("deformable-detr-plus", "Architecture of the weights.")
    output: str = option("converted", "Folder to write.", metavar="DIR")
    num_classes: int | None = option(
        None, "Number of classes.", at_least=1, shown="as in the checkpoint", known_as=("nc",)
    )
    classes: list[str] | None = option(
        None, "Names of the classes, separated by commas.", shown="as in the checkpoint"
    )
    to: Literal["od-detr", "huggingface"] = option("od-detr", "Format to write.")
    json: bool = json_option()


def convert(options: ConvertOptions) -> dict[str, Any]:
    """Converts and reports which tensors were used."""
    from od_detr.integrations.weights.convert import convert as convert_weights
    from od_detr.integrations.weights.convert import convert_to_huggingface

    source, output = Path(options.checkpoint), Path(options.output)
    if options.to == "huggingface":
        done = convert_to_huggingface(source, output)
    else:
        done = convert_weights(source, options.model, output, options.num_classes, options.classes)
    print(done)
    tensors = {"taken": done.taken, "fresh": done.fresh, "unused": done.unused}
    return {"output": options.output} | tensors
