"""What all runs of a scale share: data, detector, schedule.

Each returns options set for 24 of the paper's epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from od_detr.errors import InputError
from od_detr.experiments.experiment import DEVICES, SCHEDULE
from od_detr.options import EvalOptions, OptimizerOptions, TrainOptions

SCENES = "scenes"  # their folder in the output of scale tiny
TINY_EPOCHS = 4  # of 125 steps: a row takes two to three minutes on two cores
SMALL_IMAGES = (
    1500  # images a row is trained on, or two epochs of a larger data set: ten minutes on two cores
)
SMALL_BACKBONE = "mobilenetv1_100.ra4_e3600_r224_in1k"


def tiny(data: Path | None, output: Path) -> TrainOptions:
    """The demo's detector, from scratch, on a CPU.

    Its scenes lie in `output` unless there is other `data`.
    """
    from od_detr.experiments.demo import demo_options

    return replace(
        demo_options(data or output / SCENES, output), epochs=TINY_EPOCHS, eval=EvalOptions()
    )


def prepare(scale: TrainOptions) -> None:
    """Renders the built-in scenes, if those are the data of a scale and are not there yet; looks
    for any other data.

    Raises:
        InputError: there is no data set in that folder.
    """
    from od_detr.data.folders import find_readers
    from od_detr.data.scenes import render_scenes
    from od_detr.experiments.demo import SCENE_SIZE, TRAIN_SCENES, UNSEEN_SCENES

    if Path(scale.data) == Path(scale.output) / SCENES:
        render_scenes(Path(scale.data), TRAIN_SCENES, UNSEEN_SCENES, SCENE_SIZE)
    find_readers(Path(scale.data))


def small(data: Path | None, output: Path) -> TrainOptions:
    """Real images at 256 px on a small detector whose backbone has ImageNet weights."""
    data = _required(data, "small", "a folder of labelled images")
    return TrainOptions(
        data=str(data),
        epochs=max(2, round(SMALL_IMAGES / _count_images(data))),
        batch_size=4,
        image_size=256,
        backbone=SMALL_BACKBONE,
        hidden_dim=128,
        encoder_layers=2,
        decoder_layers=3,
        queries=100,
        feedforward=512,
        dropout=0.0,
        workers=0,
        opt=OptimizerOptions(lr=3e-4, warmup=50),
    )


def fine_tuning(data: Path | None, output: Path) -> TrainOptions:
    """What `od-detr train --init` does by default; the caller adds `init`."""
    from od_detr.training.setup.epochs import default_epochs

    data = _required(data, "fine-tuning", "a folder of labelled images")
    options = TrainOptions(data=str(data))
    steps = max(1, _count_images(data) // options.device_batch)
    return replace(options, epochs=default_epochs(steps, trained=True))


def paper(data: Path | None, output: Path) -> TrainOptions:
    """The paper's setting (section 4.1): COCO 2017, ResNet-50, 800 px, 24 epochs, 8 x 2 images."""
    data = _required(data, "paper", "COCO 2017: annotations/, train2017/ and val2017/")
    return TrainOptions(data=str(data), epochs=SCHEDULE, devices=DEVICES)


SCALES: dict[str, Callable[[Path | None, Path], TrainOptions]] = {
    "tiny": tiny,
    "small": small,
    "fine-tuning": fine_tuning,
    "paper": paper,
}


def on_devices(scale: TrainOptions, devices: int) -> TrainOptions:
    """The same total batch on another number of devices.

    No device gets more images than before; gradients are accumulated instead.
    """
    images = scale.device_batch * (scale.devices or 1) * scale.accumulate
    if devices < 1 or images % devices:
        raise InputError(
            f"--devices {devices}: {images} images a step cannot be shared evenly; give a divisor"
        )
    batch = max(size for size in range(1, scale.device_batch + 1) if images // devices % size == 0)
    return replace(scale, devices=devices, batch_size=batch, accumulate=images // devices // batch)


def _required(data: Path | None, scale: str, what: str) -> Path:
    if data is None:
        raise InputError(f"--scale {scale}: needs --data, {what}")
    return data


def _count_images(data: Path) -> int:
    from od_detr.data.folders import open_split

    return max(1, len(open_split(data, "train").image_ids))
