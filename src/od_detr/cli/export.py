"""`od-detr export`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.cli.command import WeightsName, json_option, run_option, weights_option
from od_detr.options.fields import option


@dataclass(frozen=True)
class ExportOptions:
    """Export a detector to an ONNX file, which needs neither PyTorch nor this package."""

    run: str = run_option()
    output: str = option("model.onnx", "File to write.", metavar="FILE", known_as=("out", "file"))
    format: Literal["onnx"] = option(
        "onnx", "Format to write. OpenVINO and TensorRT read ONNX files.", known_as=("to",)
    )
    weights: WeightsName = weights_option()
    json: bool = json_option()


def export(options: ExportOptions) -> dict[str, Any]:
    """Writes the file, runs it, and prints how far it is from PyTorch."""
    from od_detr.inference.export import export_onnx
    from od_detr.inference.predictor import Predictor
    from od_detr.integrations.weights.hub import as_source

    predictor = Predictor.from_run(as_source(options.run), options.weights, "cpu", "32")
    print("recording the network for images of any size; this takes some minutes", flush=True)
    found = export_onnx(predictor, Path(options.output))
    print(
        f"saved in {options.output}; on noise, its scores are within "
        f"{found.score_difference:.1e} of PyTorch's and {found.agreeing:.0%} of its boxes agree"
    )
    return {"output": options.output} | asdict(found)
