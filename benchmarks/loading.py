"""Opening a data set as large as COCO 2017, and evaluating on its validation set.

The set has 118,287 and 5,000 images and 860,001 boxes, with polygons in the annotation files.
Opening reads annotations and directory listings, never a pixel, so all images are links to one tiny
file. Each opening is a fresh process. Its cost is counted above the imports: processor seconds, and
the growth of the peak of resident memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import Figure, cost

IMAGES = {"train": (118_287, 823_220), "val": (5_000, 36_781)}
MOST_LINKS = 50_000  # of one file; ext4 allows 65,000
OPEN = """
import json, re, sys, time
from pathlib import Path
import od_detr.evaluation.coco
from od_detr.data.dataset import CocoDataset
# getrusage would count the peak of the parent process, too.
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
memory, start = peak(), time.process_time()
train = CocoDataset.from_folder(Path(sys.argv[1]), "train")
val = CocoDataset.from_folder(Path(sys.argv[1]), "val", classes=train.classes)
counts = train.most_targets, val.most_targets
print(json.dumps([time.process_time() - start, peak() - memory]))
"""


def write_set(folder: Path, images: dict[str, tuple[int, int]]) -> None:
    """Writes both splits in COCO's own layout."""
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir()
    for split, (number, boxes) in images.items():
        place = folder / f"{split}2017"
        place.mkdir()
        picture = place
        ids = rng.permutation(5 * number)[:number]
        for turn, identity in enumerate(ids):
            if turn % MOST_LINKS == 0:
                picture = place / f"{identity:012d}.jpg"
                Image.new("RGB", (8, 8)).save(picture)
            else:
                os.link(picture, place / f"{identity:012d}.jpg")
        document = folder / "annotations" / f"instances_{split}2017.json"
        with document.open("w") as file:
            file.write('{"info": {"year": 2017}, "images": [')
            file.write(", ".join(map(_image, ids.tolist())))
            file.write('], "annotations": [')
            _write_boxes(file, ids, boxes, rng)
            categories = [
                {"supercategory": f"group {n % 9}", "id": n, "name": f"class {n}"}
                for n in range(1, 81)
            ]
            file.write(f'], "categories": {json.dumps(categories)}}}')


def _image(identity: int) -> str:
    entry = {
        "license": 3,
        "file_name": f"{identity:012d}.jpg",
        "coco_url": f"http://images.cocodataset.org/train2017/{identity:012d}.jpg",
        "height": 480,
        "width": 640,
        "date_captured": "2013-11-14 11:18:45",
        "id": identity,
    }
    return json.dumps(entry)


def _write_boxes(file, ids: np.ndarray, boxes: int, rng: np.random.Generator) -> None:
    """Boxes with polygons of 6 to 52 points, about as long as COCO's."""
    numbers = rng.uniform(0, 400, 20_000).round(2).tolist()
    polygons = [json.dumps([numbers[n : n + 12 + 2 * (n % 46)]]) for n in range(5_000)]
    owners, labels = rng.choice(ids, boxes), rng.integers(1, 81, boxes)
    corners, sizes = rng.uniform(0, 300, (boxes, 2)), rng.uniform(2, 170, (boxes, 2))
    rows = np.concatenate([corners, sizes], 1).round(2).tolist()
    for n, (owner, label, box) in enumerate(zip(owners, labels, rows, strict=True)):
        file.write(
            f'{", " if n else ""}{{"segmentation": {polygons[n % 5_000]}, "area": '
            f'{box[2] * box[3] / 2:.4f}, "iscrowd": 0, "image_id": {owner}, "bbox": {box}, '
            f'"category_id": {label}, "id": '
            f"{n + 1}}}"
        )


def _opened(folder: Path, cache: Path) -> tuple[float, float]:
    environment = os.environ | {"OD_DETR_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", OPEN, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, env=environment, text=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def _evaluation_seconds(folder: Path, detections: int = 100) -> float:
    from od_detr.evaluation.coco import CocoEvaluator

    evaluator, rng = CocoEvaluator(folder / "annotations/instances_val2017.json"), torch.Generator()
    for image in evaluator.truth.images:
        corner = torch.rand(detections, 2, generator=rng) * 300
        size = torch.rand(detections, 2, generator=rng) * 170 + 2
        scores = torch.rand(detections, generator=rng)
        labels = torch.randint(0, 80, (detections,), generator=rng)
        evaluator.add(image, torch.cat([corner, corner + size], 1), scores, labels)
    start = time.process_time()
    evaluator.summary()
    return time.process_time() - start


def measure(rounds: int = 1, images: dict[str, tuple[int, int]] | None = None) -> dict[str, Figure]:
    """The figures of `od-detr benchmark loading`; the least of each over the rounds."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "coco")
        folder.mkdir()
        write_set(folder, images or IMAGES)
        caches = [Path(parent, f"cache{turn}") for turn in range(rounds)]
        time.sleep(2.5)  # a file that was just written is not yet remembered by its time stamp
        first = [_opened(folder, cache) for cache in caches]
        further = [_opened(folder, cache) for cache in caches]
        evaluated = min(_evaluation_seconds(folder) for _ in range(rounds))
    return {
        "open_cpu_seconds": _of(min(seconds for seconds, _ in first), 4),
        "open_peak_bytes": _of(min(memory for _, memory in first), 400e6, "bytes"),
        "further_process_cpu_seconds": _of(min(seconds for seconds, _ in further), 1),
        "further_process_bytes": _of(min(memory for _, memory in further), 150e6, "bytes"),
        "evaluation_seconds": _of(evaluated, 8),
    }


def _of(ours: float, goal: float, unit: str = "seconds") -> Figure:
    return cost(ours, goal, goal, unit) | {"peer": goal}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
