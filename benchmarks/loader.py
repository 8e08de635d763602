"""Decoding and augmentation against Deformable-DETR's Pillow pipeline, on one core.

Both decode the same JPEG files of 640 x 480 pixels and carry out the same random plans of DETR's
policy. The peer ends with normalised float images, as its data set does; ours stay uint8, because
they are normalised on the device. Copying into the padded batch is left out on both sides; it takes
about as long for interleaved bytes as for planar floats. The two take turns image by image, so that
a busy machine slows both alike.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional

from benchmarks.timing import Figure, one_thread, speedup
from od_detr.data.images import read_image
from od_detr.data.scenes import render_scene
from od_detr.data.transforms import Plan, Transform, apply_to_image

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Writes scenes of 640 x 480 pixels as JPEG files, about as large as photographs (130 kB)."""
    files = [folder / f"{index}.jpg" for index in range(count)]
    for index, file in enumerate(files):
        pixels = render_scene("train", index, 640).pixels[:480]
        grain = np.random.default_rng(index).normal(0, 9, pixels.shape)
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(file, quality=92)
    return files


def with_pillow(file: Path, plan: Plan) -> Image.Image:
    """The plan as Deformable-DETR carries it out, on Pillow images."""
    image = Image.open(file).convert("RGB")
    if plan.flip:
        image = functional.hflip(image)
    if plan.before_crop is not None and plan.crop is not None:
        image = functional.crop(functional.resize(image, list(plan.before_crop)), *plan.crop)
    return functional.resize(image, list(plan.size))


def normalised(image: Image.Image) -> torch.Tensor:
    """The image as a network gets it."""
    return functional.normalize(functional.to_tensor(image), MEAN, STD)


def measure(images: int = 40, rounds: int = 3) -> dict[str, Figure]:
    """The `loader` results: seconds per image, and the mean pixel difference in units of 1/255."""
    ours, peer, differences = [], [], []
    transform, rng = Transform(800, "detr"), Random(0)
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        files = write_photographs(Path(folder), images)
        # The first round also warms caches up: it measures the difference, not the time.
        for turn in range(rounds + 1):
            for file in files:
                plan = transform.plan(480, 640, rng)
                start = time.perf_counter()
                mine = apply_to_image(plan, read_image(file))
                middle = time.perf_counter()
                picture = with_pillow(file, plan)
                normalised(picture)
                end = time.perf_counter()
                if turn:
                    ours.append(middle - start)
                    peer.append(end - middle)
                else:
                    theirs = functional.pil_to_tensor(picture)
                    differences.append((mine.int() - theirs.int()).abs().double().mean().item())
    difference = statistics.fmean(differences)
    return {
        "speedup_over_pil": speedup(
            statistics.fmean(ours), statistics.fmean(peer), 2.5, "seconds an image"
        ),
        "mean_difference": {
            "ratio": difference,
            "ours": difference,
            "peer": 0.0,
            "goal": 0.01,
            "unit": "1/255",
        },
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
