"""Detections drawn on their image, and images side by side.

Import this module only to draw: supervision comes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import supervision
from PIL import Image, ImageDraw, ImageFont

# An image whose longer side is shorter than this is enlarged, so that its labels can be read.
SMALLEST_SIDE = 512

COLOURS = supervision.ColorPalette.DEFAULT
# Black on light colours and white on dark ones (luma of ITU-R BT.601).
TEXT_COLOURS = supervision.ColorPalette(
    [
        supervision.Color.BLACK
        if 0.299 * red + 0.587 * green + 0.114 * blue > 128
        else supervision.Color.WHITE
        for red, green, blue in (colour.as_rgb() for colour in COLOURS.colors)
    ]
)
# Pillow's own font knows no accents, Greek or Cyrillic.
FONT = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


def draw(
    image: Image.Image | np.ndarray, detections: supervision.Detections, classes: Sequence[str]
) -> Image.Image:
    """The image with a box and a label ("class score") for every detection, a colour for every
    class.

    Small images come back enlarged by a whole factor. Neither the image nor the detections are
    changed.

    Args:
        image: PIL, or uint8 RGB (height, width, 3).
        detections: boxes in the image's pixels, with class ids; scores may be missing.
        classes: name of each class id.

    Raises:
        ValueError: the detections have no class ids.
    """
    picture = (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("RGB")
    factor = max(1, -(-SMALLEST_SIDE // max(picture.size)))
    picture = picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC
    )
    if len(detections) == 0:
        return picture
    if detections.class_id is None:
        raise ValueError("detections are drawn by class: their class_id is missing")
    scores = (
        np.full(len(detections), np.inf) if detections.confidence is None else detections.confidence
    )
    order = np.argsort(scores, kind="stable")  # the highest score is drawn last, on top
    ids = detections.class_id[order]
    found = supervision.Detections(xyxy=detections.xyxy[order] * factor, class_id=ids)
    names = [str(classes[label]) for label in ids.tolist()]
    labels = [
        name if score == np.inf else f"{name} {score:.2f}"
        for name, score in zip(names, scores[order], strict=True)
    ]
    size = max(picture.size)
    boxes = supervision.BoxAnnotator(color=COLOURS, thickness=max(2, round(size / 320)))
    texts = supervision.RichLabelAnnotator(
        color=COLOURS,
        text_color=TEXT_COLOURS,
        font_path=FONT,
        font_size=max(12, round(size / 50)),
        text_padding=max(2, round(size / 256)),
        smart_position=True,  # labels stay inside the image and clear of one another
    )
    return texts.annotate(boxes.annotate(picture, found), found, labels=labels)


def contact_sheet(
    images: Sequence[Image.Image], columns: int = 4, gap: int = 8, titles: Sequence[str] = ()
) -> Image.Image:
    """The images row by row on white, each centred in a cell as large as the largest image.

    Args:
        images: at least one.
        columns: most images in a row.
        gap: pixels between two cells.
        titles: one for each column, written above it.

    Raises:
        ValueError: there are no images.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    head = round(width / 20) + gap if titles else 0
    size = (columns * (width + gap) + gap, rows * (height + gap) + gap + head)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, max(8, round(width / 24)))
    for column, title in enumerate(titles):
        pen.text((gap + column * (width + gap) + width / 2, gap), title, "black", font, "ma")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        left = gap + column * (width + gap) + (width - image.width) // 2
        top = head + gap + row * (height + gap) + (height - image.height) // 2
        sheet.paste(image.convert("RGB"), (left, top))
    return sheet
