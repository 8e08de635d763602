"""`detections.json`: COCO results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from od_detr.evaluation.coco import detections_to_coco
from od_detr.files import as_text
from od_detr.inference.outputs.output import Found


class CocoResults:
    """A JSON array of rows with `image_id`, `category_id`, `bbox` and `score`, as COCO has them.

    A row also has `file_name` and `category`, and in a video `frame` and `seconds`. The box is
    (x, y, width, height) in pixels.

    Args:
        path: file to write.
        classes: name of each class id.
        category_ids: COCO category of each class id.
    """

    def __init__(self, path: Path, classes: Sequence[str], category_ids: Sequence[int]) -> None:
        self.classes, self.category_ids = classes, category_ids
        self.count = 0
        self._file = path.open("w", encoding="utf-8")
        self._file.write("[")

    def add(self, found: Found) -> None:
        """Adds a row for each detection."""
        about = {"image_id": found.image_id, "file_name": as_text(found.file)}
        if found.frame is not None:
            about |= {"frame": found.frame, "seconds": round(found.seconds, 3)}
        for row in detections_to_coco(found.detections, 0):
            label = row["category_id"]
            category = {"category_id": self.category_ids[label], "category": self.classes[label]}
            self._file.write((",\n " if self.count else "\n ") + json.dumps(row | about | category))
            self.count += 1
        self._file.flush()

    def close(self) -> None:
        """Ends the array, so that the file is valid."""
        with self._file:
            self._file.write("\n]\n")
