"""A recorded network as OpenVINO's files: a graph (.xml) and its weights (.bin)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

SUFFIX = ".xml"


def weights_of(graph: Path) -> Path:
    """Where OpenVINO looks for the weights of a graph."""
    return graph.with_suffix(".bin")


def write_openvino(
    program: torch.onnx.ONNXProgram, about: Mapping[str, str], files: Sequence[Path]
) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
    """Writes graph and weights in float32, and reads them.

    Args:
        program: the recorded network.
        about: facts that the graph holds under `model_info`.
        files: the files to write: graph and weights, in one folder.

    Returns:
        A function that runs them on images of one size, (B, 3, H, W).
    """
    import openvino  # pyright: ignore[reportMissingImports]

    core = openvino.Core()
    model = core.read_model(program.model_proto.SerializeToString())
    for name, value in about.items():
        model.set_rt_info(value, ["model_info", name])
    with TemporaryDirectory(".part", files[0].name, files[0].parent) as folder:
        graph = Path(folder) / f"model{SUFFIX}"  # it accepts no other ending
        openvino.serialize(model, str(graph), str(weights_of(graph)))
        read = core.read_model(graph)
        # A processor that can would compute in bfloat16.
        compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for written, file in zip((graph, weights_of(graph)), files, strict=True):
            os.replace(written, file)

    return lambda images: list(compiled(images).to_tuple())
