"""Whatever a user has that shows something: files, folders, globs, PIL images, arrays, tensors."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from od_detr.data.image_formats import IMAGE_SUFFIXES
from od_detr.data.images import read_image, rgb_of
from od_detr.data.walking import walked
from od_detr.data.writing.names import unique
from od_detr.errors import InputError
from od_detr.inference.videos import SUFFIXES as VIDEO_SUFFIXES


def pixels_of(image: Any) -> UInt8[Tensor, "3 H W"]:
    """The RGB pixels of one image.

    Args:
        image: a file, a PIL image as its pixels lie (`ImageOps.exif_transpose` turns them as the
            camera was held), an RGB or grey array (height, width[, 3 or 4]) of
            uint8, or an RGB tensor (3, height, width) of uint8 or of floats from 0 to 1. OpenCV
            reads BGR: turn it with `image[..., ::-1]`.

    Raises:
        InputError: an unreadable file, or an array or tensor of another shape or type.
    """
    if isinstance(image, str | Path):
        _refuse_address(str(image))
        return read_image(image)
    if isinstance(image, Image.Image):
        return torch.from_numpy(rgb_of(image, "the PIL image")).permute(2, 0, 1)
    if isinstance(image, np.ndarray):
        return _pixels_of_array(image)
    if isinstance(image, Tensor):
        return _pixels_of_tensor(image.detach())
    raise InputError(
        f"a {type(image).__name__} is not an image; give a path, a PIL image, an array or a tensor"
    )


def _pixels_of_array(array: np.ndarray) -> UInt8[Tensor, "3 H W"]:
    if array.dtype != np.uint8:
        raise InputError(
            f"an array of {array.dtype} is ambiguous; give uint8 RGB from 0 to 255, such as "
            "(255 * array).round().astype('uint8') for values from 0 to 1"
        )
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, 2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise InputError(
            f"an array of shape {array.shape} is not an image; give (height, width, 3), RGB"
        )
    # PyTorch warns of arrays that may not be written, such as those of `np.asarray(image)`.
    return torch.from_numpy(np.require(array[..., :3], requirements=["C", "W"])).permute(2, 0, 1)


def _pixels_of_tensor(tensor: Tensor) -> UInt8[Tensor, "3 H W"]:
    if tensor.ndim != 3 or len(tensor) != 3 or 0 in tensor.shape:
        raise InputError(
            f"a tensor of shape {tuple(tensor.shape)} is not an image; give (3, height, width), RGB"
        )
    tensor = tensor.cpu()
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point() or not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise InputError(
            f"a tensor of {tensor.dtype} must hold floats from 0 to 1; or give uint8 from 0 to 255"
        )
    return (255 * tensor.float()).round().to(torch.uint8)


def is_collection(source: Any) -> bool:
    """Whether a path stands for any number of files: a folder or a glob."""
    if not isinstance(source, str | Path):
        return False
    path = Path(source)
    return path.is_dir() or (not path.exists() and glob.has_magic(str(source)))


def find_images(sources: Sequence[str]) -> list[Path]:
    """Image files named by files, folders and globs, each once, in order.

    Raises:
        InputError: a source that names nothing, or an address.
    """
    return _find(sources, IMAGE_SUFFIXES, "image")


def find_media(sources: Sequence[str]) -> list[Path]:
    """Image and video files named by files, folders and globs, each once, in order.

    Raises:
        InputError: a source that names nothing, or an address.
    """
    return _find(sources, IMAGE_SUFFIXES + VIDEO_SUFFIXES, "image or video")


def _find(sources: Sequence[str], suffixes: Sequence[str], kind: str) -> list[Path]:
    """The files; those in folders have one of the suffixes.

    The `._` files that macOS leaves on other file systems are not images and are left out.
    """
    files: list[Path] = []
    for source in sources:
        _refuse_address(source)
        path = Path(source)
        if path.is_dir():
            below = (Path(place, name) for place, _, names in walked(path) for name in names)
            found = sorted(file for file in below if file.suffix.lower() in suffixes)
        elif path.is_file():
            found = [path]
        else:
            found = [Path(name) for name in sorted(glob.glob(source, recursive=True))]
        found = [file for file in found if file.is_file() and not file.name.startswith("._")]
        if not found and path.is_dir():
            raise InputError(f"{source}: holds no {kind}; known are {', '.join(suffixes)}")
        if not found:
            raise InputError(f"{source}: no such file, folder or glob; give {kind} files")
        files += found
    return list(dict.fromkeys(files))


def unique_stems(files: Sequence[Path]) -> list[str]:
    """A name without suffix for each file; files of one name get a number."""
    return unique(file.stem for file in files)


def _refuse_address(source: str) -> None:
    if "://" in source:
        raise InputError(
            f"{source}: addresses are not opened; download the image or record the video, and give "
            "its file"
        )
