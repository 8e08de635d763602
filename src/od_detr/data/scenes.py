"""The built-in data set: crowded scenes of simple shapes, drawn on the spot.

Every scene is a pure function of seed, split, index and size. Shapes overlap and occlude one
another, yet at least `LEAST_VISIBLE` of each can be seen; boxes are amodal, tight around the whole
shape and clipped to the image. Colour, texture, size and rotation say nothing about the class.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from od_detr.errors import InputError
from od_detr.files import atomic_write

CLASSES = ("disc", "ring", "square", "triangle", "cross")
LEAST_VISIBLE = 0.6
SPLITS = ("train", "val")
SUPERSAMPLING = 4
MARKER = "scenes.json"


@dataclass
class Scene:
    """An image being painted, and what is on it, from back to front.

    `owner` is the index of the object seen at a pixel, -1 for the background; `areas` are the areas
    of the whole shapes in pixels; `boxes_xyxy` are in pixels.
    """

    image: Float[np.ndarray, "H W 3"]
    owner: Int[np.ndarray, "H W"]
    labels: list[int] = field(default_factory=list)
    boxes_xyxy: list[tuple[float, float, float, float]] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)

    @property
    def pixels(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image as RGB bytes."""
        return (self.image * 255 + 0.5).astype(np.uint8)

    @property
    def visible(self) -> list[float]:
        """The fraction of each shape that can be seen."""
        return _visible(self.owner, self.areas)


def render_scenes(output: Path, train: int, val: int, size: int = 128, seed: int = 0) -> None:
    """Writes a COCO data set: ``train.json``, ``val.json`` and ``images/{train,val}/*.png``.

    An interrupted rendering is completed when called again in the same way, a complete one is left
    alone.

    Args:
        output: a folder of its own; made if absent.
        train: number of training scenes.
        val: number of validation scenes, none of which is a training scene.
        size: height and width of the images, in pixels, at least 32.
        seed: any integer from 0.

    Raises:
        InputError: `output` holds anything else, or scenes drawn with other arguments; nothing is
            overwritten.
    """
    if size < 32 or seed < 0 or min(train, val) < 1:
        raise InputError(
            f"no scenes of size {size}, seed {seed}, train {train}, val {val}; give 32, 0, 1, 1 or "
            "more"
        )
    output = Path(output)
    made_with = {
        "od_detr": "crowded scenes",
        "train": train,
        "val": val,
        "size": size,
        "seed": seed,
    }
    _claim(output, made_with)
    for split, count in zip(SPLITS, (train, val), strict=True):
        if not (output / f"{split}.json").exists():
            _render_split(output, split, count, size, seed)


def render_scene(split: str, index: int, size: int = 128, seed: int = 0) -> Scene:
    """Draws one scene of 3 to 10 shapes."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    ground = rng.random(3)
    image = _texture(rng, size, size, ground, rng.random(3))
    scene = Scene(image, np.full((size, size), -1, dtype=np.int64))
    crowd = 3 + int(8 * rng.random() ** 2.5)
    for label in rng.integers(len(CLASSES), size=crowd).tolist():
        # In a full scene no place may be left; the first three shapes always find one.
        for _ in range(20):
            if _add(scene, label, rng, ground):
                break
    return scene


def _claim(output: Path, made_with: dict[str, object]) -> None:
    """Makes sure that the folder is ours to write to."""
    marker = output / MARKER
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not marker.is_file():
            raise InputError(f"{output}: already holds other files; give an empty or a new folder")
        try:
            found = json.loads(marker.read_text())
        except ValueError:
            found = None
        if found != made_with:
            raise InputError(
                f"{marker}: these scenes were drawn with other settings; give an empty or a new "
                "folder"
            )
    output.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(made_with))


def _render_split(output: Path, split: str, count: int, size: int, seed: int) -> None:
    folder = output / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        scene = render_scene(split, index, size, seed)
        name = f"{index:06d}.png"
        Image.fromarray(scene.pixels).save(folder / name, compress_level=1)
        images.append({"id": index + 1, "file_name": name, "width": size, "height": size})
        for label, (left, top, right, bottom), visible in zip(
            scene.labels, scene.boxes_xyxy, scene.visible, strict=True
        ):
            width, height = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label + 1,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "visible": round(visible, 3),
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    # The annotations come into being whole and last: without them a split counts as unfinished.
    with atomic_write(output / f"{split}.json") as unfinished:
        unfinished.write_text(json.dumps(document))


def _add(
    scene: Scene, label: int, rng: np.random.Generator, ground: Float[np.ndarray, " 3"]
) -> bool:
    """Paints one more shape in front, unless that would hide it or another one too much."""
    size = len(scene.owner)
    radius = size * rng.uniform(0.13, 0.24)
    centre = _place(scene, rng, radius)
    outlines = [
        centre + radius * part for part in _outlines(CLASSES[label], rng.uniform(0, 2 * math.pi))
    ]
    low, high = outlines[0].min(0), outlines[0].max(0)
    x1, y1 = np.floor(np.clip(low, 0, size)).astype(int).tolist()
    x2, y2 = np.ceil(np.clip(high, 0, size)).astype(int).tolist()
    cover = _coverage(outlines, (x1, y1), (x2 - x1, y2 - y1))
    owner = scene.owner.copy()
    owner[y1:y2, x1:x2][cover > 0.5] = len(scene.labels)
    areas = [*scene.areas, _area(outlines)]
    if min(_visible(owner, areas)) < LEAST_VISIBLE:
        return False
    colour = _contrasting(rng, ground)
    paint = _texture(
        rng, y2 - y1, x2 - x1, colour, np.clip(colour + rng.uniform(-0.15, 0.15, 3), 0, 1)
    )
    region = scene.image[y1:y2, x1:x2]
    region += cover[..., None] * (paint - region)
    box = [round(float(value), 2) for value in (*np.clip(low, 0, size), *np.clip(high, 0, size))]
    scene.owner, scene.areas = owner, areas
    scene.labels.append(label)
    scene.boxes_xyxy.append((box[0], box[1], box[2], box[3]))
    return True


def _place(scene: Scene, rng: np.random.Generator, radius: float) -> Float[np.ndarray, " 2"]:
    """A centre: mostly close to a shape that is there, so that the two overlap, else anywhere."""
    size = len(scene.owner)
    centre = rng.uniform(0.08, 0.92, 2) * size
    if scene.labels and rng.random() < 0.3:
        left, top, right, bottom = scene.boxes_xyxy[int(rng.integers(len(scene.labels)))]
        angle = rng.uniform(0, 2 * math.pi)
        distance = rng.uniform(0.45, 0.9) * (radius + max(right - left, bottom - top) / 2)
        middle = np.array([left + right, top + bottom]) / 2
        centre = middle + distance * np.array([math.cos(angle), math.sin(angle)])
    return np.clip(centre, 0.08 * size, 0.92 * size)


def _outlines(name: str, turn: float) -> list[Float[np.ndarray, "P 2"]]:
    """Corners of a shape of radius 1 around the origin: its outline, and its hole's if any."""
    if name == "disc":
        return [_regular(64, 1.0, turn)]
    if name == "ring":
        return [_regular(64, 1.0, turn), _regular(64, 0.55, turn)]
    if name == "square":
        return [_regular(4, 1.0, turn)]
    if name == "triangle":
        return [_regular(3, 1.0, turn)]
    arm = math.atan(0.36)
    angles = np.repeat(np.arange(4) * math.pi / 2, 3) + np.tile([-arm, arm, math.pi / 4], 4)
    return [_polar(angles + turn, np.tile([1, 1, math.sqrt(2) * math.sin(arm)], 4))]


def _regular(corners: int, radii: float, turn: float) -> Float[np.ndarray, "P 2"]:
    return _polar(turn + 2 * math.pi * np.arange(corners) / corners, radii)


def _polar(angles: np.ndarray, radii: float | np.ndarray) -> Float[np.ndarray, "P 2"]:
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], 1)


def _area(outlines: list[Float[np.ndarray, "P 2"]]) -> float:
    """Area inside the first outline and outside the others, by the shoelace formula."""
    areas = []
    for points in outlines:
        following = np.roll(points, -1, 0)
        areas.append(
            abs((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum()) / 2
        )
    return float(areas[0] - sum(areas[1:]))


def _coverage(
    outlines: list[Float[np.ndarray, "P 2"]], origin: tuple[int, int], size: tuple[int, int]
) -> Float[np.ndarray, "H W"]:
    """The fraction of each pixel of a region that lies inside the shape.

    `origin` is (x, y), and `size` is (width, height).
    """
    mask = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    draw = ImageDraw.Draw(mask)
    for points, fill in zip(outlines, (255, 0), strict=False):
        # Pillow's coordinates are those of pixel centres.
        corners = (points - origin) * SUPERSAMPLING - 0.5
        draw.polygon(corners.ravel().tolist(), fill=fill)
    return np.asarray(mask.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def _visible(owner: Int[np.ndarray, "H W"], areas: list[float]) -> list[float]:
    seen = np.bincount(owner.ravel() + 1, minlength=len(areas) + 1)[1:]
    return [min(1.0, float(pixels / area)) for pixels, area in zip(seen, areas, strict=True)]


def _contrasting(
    rng: np.random.Generator, ground: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, " 3"]:
    """Any colour that does not vanish in the background."""
    while True:
        colour = rng.random(3)
        if np.abs(colour - ground).max() > 0.45:
            return colour


def _texture(
    rng: np.random.Generator,
    height: int,
    width: int,
    first: Float[np.ndarray, " 3"],
    second: Float[np.ndarray, " 3"],
) -> Float[np.ndarray, "H W 3"]:
    """Two colours blended along a gradient, in stripes or in patches, under some grain."""
    angle = rng.uniform(0, 2 * math.pi)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(math.sin(angle))
    columns = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(math.cos(angle))
    ramp = (rows + columns) / 2
    kind = rng.integers(3)
    if kind == 0:
        blend = ramp + 0.5
    elif kind == 1:
        blend = 0.5 + 0.5 * np.sin(ramp * np.float32(rng.uniform(5, 40)))
    else:
        coarse = Image.fromarray(rng.random((5, 5), dtype=np.float32))
        blend = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.random((height, width, 1), dtype=np.float32) * np.float32(rng.uniform(0, 0.1))
    mixed = first.astype(np.float32) + blend[..., None] * (second - first).astype(np.float32)
    return np.clip(mixed + grain - grain.mean(), 0, 1)
