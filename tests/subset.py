"""The first images of a COCO file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def first_images(file: Path, number: int) -> dict[str, Any]:
    """The content of a COCO file with its first images and their annotations alone."""
    content = json.loads(file.read_text())
    images = content["images"][:number]
    ids = {image["id"] for image in images}
    annotations = [each for each in content["annotations"] if each["image_id"] in ids]
    return content | {"images": images, "annotations": annotations}
