"""Export to ONNX or OpenVINO: a detector in files that need neither PyTorch nor this package."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from od_detr.detectors import DetectionTransformer, best_pairs
from od_detr.errors import InputError
from od_detr.files import atomic_write, make_directory, writing
from od_detr.inference.openvino_files import SUFFIX, weights_of, write_openvino
from od_detr.inference.predictor import Predictor
from od_detr.structures import Batch, Targets

OPSET = 18
TRACED = (2, 3, 256, 320)
"""Shape of the pixels that the network is recorded with; the file takes any other."""
MOST_DIFFERENT = 1e-2
"""A file whose scores differ by more is wrong: rounding moves them by about 1e-7."""
FORMATS = {"onnx": ".onnx", "openvino": SUFFIX}
OUTPUTS = ("boxes", "scores", "labels")
Run = Callable[[np.ndarray], Sequence[Any]]


@dataclass(frozen=True)
class Comparison:
    """How far a file is from PyTorch on images of noise.

    Attributes:
        score_difference: largest difference between scores of the same rank.
        agreeing: share of the boxes of the same rank that agree to a thousandth of the image's
            side. Detections of equal score may change places, so it can be below 1.
    """

    score_difference: float
    agreeing: float


class PixelsToDetections(nn.Module):
    """What the file computes.

    Args:
        detector: ready for inference, in float32.
    """

    def __init__(self, detector: DetectionTransformer) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self, images: UInt8[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B X 4"], Float[Tensor, "B X"], Int[Tensor, "B X"]]:
        """Boxes (x1, y1, x2, y2) from 0 to 1, scores and labels of RGB images of one size."""
        padding: Bool[Tensor, "B H W"] = torch.zeros_like(images[:, 0], dtype=torch.bool)
        nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), ())
        main = self.detector(Batch(images, padding, nothing))["main"]
        boxes, scores, labels = best_pairs(main.predictions, self.detector.top_k)
        return boxes, scores, labels.int()


def export(predictor: Predictor, file: Path) -> Comparison:
    """Writes a detector as an ONNX file, or as two files of OpenVINO, and runs what it wrote.

    The files take any number of RGB images of one size and of any height and width. Their metadata
    holds the class names, the image size and the threshold.

    Args:
        predictor: the detector, on the CPU and in float32.
        file: the file to write. One that ends with `.xml` is for OpenVINO, and its weights go to
            a `.bin` file of the same name. Older files are replaced.

    Raises:
        InputError: the packages for the export are not installed, or the file cannot be written.
        RuntimeError: the file gives other scores than the detector. It is removed.
    """
    check_installed(file)
    network = PixelsToDetections(predictor.detector).eval()
    size = predictor.transform.image_size
    files = files_of(file)
    for each in files:
        if each.is_dir():
            raise InputError(f"{each}: is a folder; give another --output")
    # The place is tried before the network is recorded, which takes minutes.
    with writing(file), ExitStack() as written:
        make_directory(file.parent)
        partial = [written.enter_context(atomic_write(each)) for each in files]
        program = _recorded(network)
        write = write_openvino if len(files) > 1 else write_onnx
        run = write(program, _about(predictor), partial)
        found = compared(network, run, (1, 3, size, size * 5 // 4))
        if found.score_difference > MOST_DIFFERENT:
            raise RuntimeError(f"the scores of the file are wrong by {found.score_difference}")
        if len(files) > 1:
            # It is renamed last. Until then no graph is there that reads the weights of another.
            file.unlink(missing_ok=True)
    return found


def file_of(output: str | Path | None, format: str | None) -> Path:
    """The file to write, whose suffix decides the format.

    Args:
        output: what the user gave; None takes `model` with the suffix of the format.
        format: "onnx", "openvino" or None.

    Raises:
        InputError: the suffix is that of another format.
    """
    suffix = FORMATS[format or "onnx"]
    file = Path(f"model{suffix}" if output is None else output)
    allowed = list(FORMATS.values()) if format is None else [suffix]
    if file.suffix.lower() not in allowed:
        raise InputError(f"--output {file}: must end with {' or '.join(allowed)}")
    return file


def files_of(file: Path) -> list[Path]:
    """The files that an export writes: the file itself, and the weights of OpenVINO's graph."""
    return [file, weights_of(file)] if file.suffix.lower() == SUFFIX else [file]


def write_onnx(
    program: torch.onnx.ONNXProgram, about: Mapping[str, str], files: Sequence[Path]
) -> Run:
    """Writes the recorded network with these metadata to a single file, and reads it.

    Returns:
        A function that runs it on images of one size, (B, 3, H, W).
    """
    program.model.metadata_props.update(about)
    (file,) = files
    program.save(file, external_data=False)
    return running(file)


def running(file: Path) -> Run:
    """Runs an ONNX file on a CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def _recorded(network: PixelsToDetections) -> torch.onnx.ONNXProgram:
    """The network as a graph of standard operators, for any number and size of images."""
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        network,
        (torch.zeros(TRACED, dtype=torch.uint8),),
        input_names=["images"],
        output_names=OUTPUTS,
        dynamic_shapes={"images": {0: dynamic, 2: dynamic, 3: dynamic}},
        opset_version=OPSET,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    _simplify(program)
    return program


def _simplify(program: torch.onnx.ONNXProgram) -> None:
    """Folds what is constant. The exporter's own rewriting loses an input of DINO's graph."""
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants, inline

    inline(program.model)
    fold_constants(program.model)
    for improve in (
        common.RemoveUnusedNodesPass(),
        common.CommonSubexpressionEliminationPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        improve(program.model)


def _about(predictor: Predictor) -> Mapping[str, str]:
    """What a program that runs the file has to know."""
    values: dict[str, Any] = {
        "classes": predictor.classes,
        "image_size": predictor.transform.image_size,
        "longest_side": predictor.transform.longest,
        "threshold": predictor.threshold,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def compared(network: PixelsToDetections, run: Run, shape: tuple[int, ...]) -> Comparison:
    """Runs the written file and the network on images of noise of a shape (B, 3, H, W)."""
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, shape, generator=noise, dtype=torch.uint8)
    boxes, scores, _ = map(torch.from_numpy, run(pixels.numpy()))
    with torch.inference_mode():
        expected_boxes, expected_scores, _ = network(pixels)
    agreeing = (boxes - expected_boxes).abs().amax(-1) < 1e-3
    difference = (scores - expected_scores).abs().max()
    return Comparison(difference.item(), agreeing.float().mean().item())


def check_installed(file: Path) -> None:
    """Looks for what records the network, and for what runs the file.

    Raises:
        InputError: naming what to install.
    """
    is_openvino = len(files_of(file)) > 1
    extra = "export,openvino" if is_openvino else "export"
    for package in ("onnxscript", "openvino" if is_openvino else "onnxruntime"):
        if find_spec(package) is None:
            raise InputError(f"{package} is not installed; pip install 'od-detr[{extra}]'")
