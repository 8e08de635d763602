"""What a run trains on: which images and boxes, and how they enter the detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from od_detr.options.commands.shared import voc_origin_option
from od_detr.options.fields import REQUIRED, option

DEFAULT_SIZE = 800  # pixels


@dataclass(frozen=True)
class DataOptions:
    """The training and validation images."""

    data: str = option(
        REQUIRED,
        "Folder of labelled images: COCO, YOLO (or its YAML file) or Pascal VOC.",
        metavar="DIR",
        everyday=True,
        may_change_on_resume=True,
        is_path=True,
        known_as=("dataset", "dataset_dir", "dataset_file", "coco_path", "data_path"),
    )
    val_data: str | None = option(
        None,
        "Another folder to validate on.",
        is_path=True,
        shown="that of --data",
        may_change_on_resume=True,
        known_as=("val", "val_dir", "val_path"),
    )
    val_fraction: float = option(
        0.2,
        "Share of the images to validate on where the data has no validation split.",
        at_least=0.001,
        at_most=0.999,
    )
    group: str | None = option(
        None,
        "Regular expression. Images whose first group is equal stay on one side of that split.",
        shown="each image by itself",
    )
    classes: list[str] | None = option(
        None, "Names of the classes to train on, separated by commas.", shown="all"
    )
    single_class: bool = option(
        False, "Whether to treat all classes as one.", known_as=("single_cls",)
    )
    difficult: Literal["ignore", "keep"] = option(
        "ignore", "Pascal VOC's difficult objects: ignore them, or keep them like any other."
    )
    voc_origin: int = voc_origin_option()
    balance: float | None = option(
        None,
        "Repeat images of classes that occur in less than this fraction of the images (LVIS's "
        "rule).",
        at_least=1e-6,
        at_most=1,
        shown="each image once an epoch",
    )
    background_fraction: float | None = option(
        None,
        "Share of an epoch's images that have no objects. They are drawn again for each epoch.",
        at_least=0,
        at_most=0.99,
        shown="all, once an epoch",
    )
    on_unreadable: Literal["few", "stop", "skip"] = option(
        "few",
        "What to do about images that are missing, broken or not of the size written: skip and "
        "name at most 5 %, and 20, of a split (on one device) or else stop before the first step; "
        "always stop; or skip them all.",
    )
    image_size: int | None = option(
        None,
        "Short side of the images in pixels. Training varies it.",
        at_least=16,
        cap=10_000,
        everyday=True,
        resolved=True,
        shown=f"that of --init, or {DEFAULT_SIZE}",
        known_as=("imgsz", "img", "img_size", "size", "resolution"),
    )
    augment: Literal["none", "flip", "detr", "strong"] = option(
        "detr",
        "Augmentation: none, flips, flips with DETR's scales and crops, or strong: large-scale "
        "jitter, other colours and mosaics.",
        everyday=True,
        known_as=(
            *("augmentation", "aug", "mosaic", "close_mosaic", "multi_scale", "scale", "fliplr"),
            *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "mixup", "copy_paste"),
        ),
    )

    @property
    def short_side(self) -> int:
        """`image_size`, or its default where neither the user nor `init` decided it."""
        return self.image_size or DEFAULT_SIZE
