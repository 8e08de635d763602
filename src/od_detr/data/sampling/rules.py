"""How often an image should be seen: rare classes more often, images without objects less often."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from od_detr.data.annotations import Annotations, clipped, has_area
from od_detr.data.sampling.composition import Composition
from od_detr.errors import InputError


def composed(
    found: Annotations, balance: float | None = None, background_fraction: float | None = None
) -> Composition:
    """The images of an epoch.

    Args:
        found: the training images and their boxes.
        balance: images of classes that fewer than this share of all images have are repeated, see
            `repeat_factors`; None repeats nothing.
        background_fraction: share of an epoch's images that have no objects to train on; None takes
            all of them once.

    Raises:
        InputError: there are no images, with or without objects, to choose from.
    """
    images = len(found.image_ids)
    if balance is None and background_fraction is None:
        return Composition.each_once(images)
    labels, owners = _objects(found)
    repeats, background = np.ones(images), np.ones(images, dtype=bool)
    background[owners] = False
    if background.all():
        option = "--balance" if background_fraction is None else "--background-fraction"
        raise InputError(f"{option}: no image in {found.file} has an object; leave it out")
    if balance is not None:
        repeats = repeat_factors(labels, owners, len(found.classes), images, balance)
    if background_fraction is not None:
        if background_fraction and not background.any():
            raise InputError(
                f"--background-fraction: every image in {found.file} has objects; leave it out, or "
                "add images without objects"
            )
        with_objects = int(np.floor(repeats[~background].sum()))
        without = round(with_objects * background_fraction / (1 - background_fraction))
        repeats[background] = without / max(1, int(background.sum()))
    return Composition(repeats, background)


def repeat_factors(
    labels: Int64[np.ndarray, " N"],
    owners: Int64[np.ndarray, " N"],
    classes: int,
    images: int,
    threshold: float,
) -> Float64[np.ndarray, " I"]:
    """The repeat factor of each image, by the rule of LVIS (Gupta et al. 2019).

    A class that a share f of all images has gets ``max(1, sqrt(threshold / f))``, an image the
    largest of its classes, and an image without objects 1.

    Args:
        labels: class of each object.
        owners: image of each object.
        classes: number of classes.
        images: number of images.
        threshold: share of all images, above 0.
    """
    seen = np.unique(np.stack([owners, labels]), axis=1)
    share = np.bincount(seen[1], minlength=classes) / images
    factor = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1 / images)))
    factors = np.ones(images)
    np.maximum.at(factors, seen[0], factor[seen[1]])
    return factors


def described(composition: Composition) -> str:
    """How many images an epoch has, and which of them are repeated or left out, on one line."""
    with_objects = composition.repeats[~composition.background]
    without = composition.repeats[composition.background]
    repeated, drawn = int((with_objects > 1).sum()), round(float(without.sum()))
    several = f"{repeated} of {len(with_objects)} repeated, up to {with_objects.max():.1f} times"
    return (
        f"sampling: an epoch has {len(composition)} images: {len(composition) - drawn} with "
        f"objects ({several if repeated else 'each once'}) and {drawn} without, drawn from "
        f"{len(without)}"
    )


def _objects(
    found: Annotations,
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Class and image of every object that is trained on."""
    sizes = np.repeat(found.sizes, np.diff(found.starts), axis=0)
    kept: Bool[np.ndarray, " N"] = has_area(clipped(found.boxes_xywh, sizes)[0]) & ~found.crowd
    return np.asarray(found.labels)[kept], found.owners[kept]
