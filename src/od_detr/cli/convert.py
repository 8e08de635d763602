"""`od-detr convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.architectures import ModelName
from od_detr.options.commands.shared import json_option
from od_detr.options.fields import REQUIRED, option


@dataclass(frozen=True)
class ConvertOptions:
    """Convert official, detrex or Hugging Face weights to a detector, or a run to Hugging Face."""

    checkpoint: str = option(
        REQUIRED,
        "A PyTorch or safetensors file, a Hugging Face folder, or hf:OWNER/NAME. With --to "
        "huggingface: a run.",
        positional=True,
        known_as=("weights",),
    )
    model: ModelName | None = option(
        None, "Architecture that the weights must be of.", shown="the one that the weights show"
    )
    output: str = option("converted", "Folder to write.", metavar="DIR")
    num_classes: int | None = option(
        None, "Number of classes.", at_least=1, shown="as in the checkpoint", known_as=("nc",)
    )
    classes: list[str] | None = option(
        None, "Names of the classes, separated by commas.", shown="as in the checkpoint"
    )
    to: Literal["od-detr", "huggingface"] = option(
        "od-detr", "Format to write.", known_as=("format",)
    )
    json: bool = json_option()


def convert(options: ConvertOptions) -> dict[str, Any]:
    """Converts and reports what the weights are and which tensors were used."""
    from od_detr.integrations.weights.convert import convert as convert_weights
    from od_detr.integrations.weights.convert import convert_to_huggingface
    from od_detr.integrations.weights.hub import downloaded, is_hub_name

    named = options.checkpoint
    source = downloaded(named) if is_hub_name(named) else Path(named)
    output = Path(options.output)
    if options.to == "huggingface":
        done = convert_to_huggingface(source, output)
    else:
        done = convert_weights(source, options.model, output, options.num_classes, options.classes)
    print(f"{done}\nsaved in {output}")
    tensors = {"taken": done.taken, "fresh": done.fresh, "unused": done.unused}
    return {"output": options.output, "model": done.model, "origin": done.origin} | tensors
