"""Recordings of the official implementations: the reduced set in `recorded/`, or any set at
$OD_DETR_GOLDEN.

Every size is read from the recordings' own `config.json`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from od_detr import detectors
from od_detr.detectors import DetectionTransformer
from od_detr.integrations.weights.official import from_official
from od_detr.structures import Targets

GOLDEN = Path(os.environ.get("OD_DETR_GOLDEN", Path(__file__).parent / "recorded")).resolve()


class RecordedFeatures(nn.Module):
    """Stands for the backbone: whatever the images, the recorded maps come out."""

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, features: list[Tensor]) -> None:
        super().__init__()
        self.maps = features
        self.channels = [feature.shape[1] for feature in features]

    def stem(self, images: Tensor) -> Tensor:
        return images

    def forward(self, stem: Tensor) -> list[Tensor]:
        return self.maps


@dataclass(frozen=True)
class Recording:
    """One official model: its configuration, weights, inputs, and everything it answered."""

    folder: Path

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name}.safetensors")

    def record(self, name: str) -> dict:
        return json.loads((self.folder / f"{name}.json").read_text())

    @cached_property
    def config(self) -> dict:
        return self.record("config")

    @property
    def hyper(self) -> dict:
        return self.config["hyper_parameters"]

    @property
    def model(self) -> str:
        return self.config["model"].replace("_", "-")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self.tensors("inputs")

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        return self.tensors("outputs")

    def ours(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Official tensors under our names; none may be left over."""
        renamed, left_over = from_official(
            {name: tensor.float() for name, tensor in weights.items()}, self.model
        )
        assert not left_over
        return renamed

    def gradients(self, name: str) -> dict[str, Tensor]:
        """Recorded gradients of the parameters, under our names, and of the feature maps."""
        tensors = self.tensors(name)
        features = {key: tensors.pop(key) for key in list(tensors) if key.startswith("input.")}
        return self.ours(tensors) | features

    def features(self) -> list[Tensor]:
        return [
            self.inputs[f"feat{i}"].clone() for i in range(len(self.config["backbone_channels"]))
        ]

    def detector(self) -> DetectionTransformer:
        """Our detector with the official weights and sizes, fed with the recorded feature maps."""
        hyper = self.hyper
        assert hyper["enc_n_points"] == hyper["dec_n_points"]
        sizes = {
            "strides": tuple(self.config["backbone_strides"]),
            "hidden_dim": hyper["hidden_dim"],
            "heads": hyper["nheads"],
            "points": hyper["dec_n_points"],
            "encoder_layers": hyper["enc_layers"],
            "decoder_layers": hyper["dec_layers"],
            "feedforward": hyper["dim_feedforward"],
            "dropout": hyper["dropout"],
            "queries": hyper["num_queries"],
        }
        backbone, levels = RecordedFeatures(self.features()), hyper["num_feature_levels"]
        if self.model.startswith("dino"):
            noise = {
                "label_noise": hyper["dn_label_noise_ratio"],
                "box_noise": hyper["dn_box_noise_scale"],
            }
            detector = detectors.dino(
                hyper["num_classes"],
                backbone,
                num_levels=levels,
                denoising=hyper["dn_number"],
                **noise,
                **sizes,
            )
        else:
            builder = getattr(detectors, self.config["model"])
            detector = builder(hyper["num_classes"], backbone, num_levels=levels, **sizes)
        detector.load_state_dict(self.ours(self.tensors("weights")))
        return detector.eval()

    def targets(self, case: str) -> Targets:
        images = self.record("targets")[case]
        boxes = [torch.tensor(image["boxes"], dtype=torch.float32).view(-1, 4) for image in images]
        labels = [torch.tensor(image["labels"], dtype=torch.long) for image in images]
        return Targets(torch.cat(boxes), torch.cat(labels), tuple(map(len, labels)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`recording`: every recorded model. `dino`: those with denoising."""
    folders = sorted(file.parent for file in GOLDEN.glob("*/config.json"))
    if not folders:
        raise pytest.UsageError(
            f"OD_DETR_GOLDEN: no recorded model (a folder with config.json) in {GOLDEN}"
        )
    denoised = [folder for folder in folders if (folder / "dn_a.safetensors").is_file()]
    for name, chosen in {"recording": folders, "dino": denoised}.items():
        if name in metafunc.fixturenames:
            recordings = [pytest.param(Recording(folder), id=folder.name) for folder in chosen]
            metafunc.parametrize(name, recordings, scope="module")


@pytest.fixture(scope="session")
def units() -> Path:
    """The folder of recorded functions."""
    return GOLDEN / "units"
