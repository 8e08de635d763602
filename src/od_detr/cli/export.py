"""`od-detr export`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from od_detr.options.commands.shared import WeightsName, json_option, run_option, weights_option
from od_detr.options.fields import option


@dataclass(frozen=True)
class ExportOptions:
    """Export a detector to ONNX or OpenVINO, which need neither PyTorch nor this package."""

    run: str = run_option()
    output: str | None = option(
        None,
        "File to write. OpenVINO's weights go to a .bin file of the same name.",
        shown="model.onnx or model.xml",
        metavar="FILE",
        known_as=("out", "file"),
    )
    format: Literal["onnx", "openvino"] | None = option(
        None,
        "Format to write. TensorRT reads ONNX files.",
        shown="openvino where --output ends with .xml, onnx elsewhere",
        known_as=("to",),
    )
    weights: WeightsName = weights_option()
    json: bool = json_option()


def export(options: ExportOptions) -> dict[str, Any]:
    """Writes the file, runs it, and prints how far it is from PyTorch."""
    from od_detr.inference import export as exporting
    from od_detr.inference.predictor import Predictor

    file = exporting.file_of(options.output, options.format)
    exporting.check_installed(file)
    predictor = Predictor.from_run(options.run, options.weights, "cpu", "32")
    print("recording the network for images of any size; this takes some minutes", flush=True)
    found = exporting.export(predictor, file)
    print(
        f"saved in {file}; on noise, its scores are within "
        f"{found.score_difference:.1e} of PyTorch's and {found.agreeing:.0%} of its boxes agree"
    )
    return {"output": [str(each) for each in exporting.files_of(file)]} | asdict(found)
