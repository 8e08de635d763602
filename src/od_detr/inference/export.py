"""Export to ONNX: a detector in one file that needs neither PyTorch nor this package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from od_detr.detectors import DetectionTransformer, best_pairs
from od_detr.errors import InputError
from od_detr.files import atomic_write, make_directory, writing
from od_detr.inference.predictor import Predictor
from od_detr.structures import Batch, Targets

OPSET = 18
TRACED = (2, 3, 256, 320)
"""Shape of the pixels that the network is recorded with; the file takes any other."""
MOST_DIFFERENT = 1e-2
"""A file whose scores differ by more is wrong: rounding moves them by about 1e-7."""
OUTPUTS = ("boxes", "scores", "labels")


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


def export_onnx(predictor: Predictor, file: Path) -> Comparison:
    """Writes a detector as an ONNX file and runs the file once.

    The file takes any number of RGB images of one size and of any height and width. Its metadata
    holds the class names, the image size and the threshold.

    Args:
        predictor: the detector, on the CPU and in float32.
        file: the file to write. An older one is replaced.

    Raises:
        InputError: the packages for the export are not installed, or the file cannot be written.
        RuntimeError: the file gives other scores than the detector. It is removed.
    """
    _check_installed()
    network = PixelsToDetections(predictor.detector).eval()
    size = predictor.transform.image_size
    # The place is tried before the network is recorded, which takes minutes.
    with writing(file):
        make_directory(file.parent)
        with atomic_write(file) as partial:
            program = _recorded(network)
            program.model.metadata_props.update(_about(predictor))
            program.save(partial, external_data=False)
            found = compared(network, partial, (1, 3, size, size * 5 // 4))
            if found.score_difference > MOST_DIFFERENT:
                raise RuntimeError(f"the scores of the file are wrong by {found.score_difference}")
    return found


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


def compared(network: PixelsToDetections, file: Path, shape: tuple[int, ...]) -> Comparison:
    """Runs the file and the network on images of noise of a shape (B, 3, H, W)."""
    import onnxruntime

    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, shape, generator=noise, dtype=torch.uint8)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    boxes, scores, _ = map(torch.from_numpy, session.run(None, {"images": pixels.numpy()}))
    with torch.inference_mode():
        expected_boxes, expected_scores, _ = network(pixels)
    agreeing = (boxes - expected_boxes).abs().amax(-1) < 1e-3
    difference = (scores - expected_scores).abs().max()
    return Comparison(difference.item(), agreeing.float().mean().item())


def _check_installed() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error.name} is not installed; pip install 'od-detr[export]'") from error
