"""A data set is the same data in every format: it trains to the same losses and has the same AP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import supervision
from PIL import Image

from od_detr.data.folders import open_split
from od_detr.data.formats.choices import Choices
from od_detr.data.writing.conversion import convert_data
from od_detr.errors import InputError

SPLITS = {"train": 8, "val": 4}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A few images of BCCD in COCO format; ids and classes are in the order of their names."""
    root = tmp_path_factory.mktemp("cells")
    for split, number in SPLITS.items():
        whole = open_split(shared_data / "bccd", split)
        order = np.array(sorted(range(len(whole.names)), key=lambda i: Path(whole.paths[i]).name))
        few = whole.selected(order[:number])
        classes = sorted(few.classes)
        images, boxes = [], []
        for place in range(number):
            name = f"{split}{place}.png"
            (root / "images" / split).mkdir(parents=True, exist_ok=True)
            Image.open(few.paths[place]).convert("RGB").save(root / "images" / split / name)
            high, wide = few.sizes[place].tolist()
            images.append({"id": place + 1, "file_name": name, "height": high, "width": wide})
            for (x1, y1, x2, y2), label in zip(*few.targets(place), strict=True):
                box = [round(float(value)) for value in (x1, y1, x2 - x1, y2 - y1)]
                category = 1 + classes.index(few.classes[label])
                boxes.append({"image_id": place + 1, "category_id": category, "bbox": box})
        categories = [{"id": n, "name": name} for n, name in enumerate(classes, 1)]
        document = {"images": images, "annotations": boxes, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(document))
    return root


def theirs(cells: Path, split: str) -> supervision.DetectionDataset:
    return supervision.DetectionDataset.from_coco(
        str(cells / "images" / split), str(cells / f"{split}.json")
    )


def voc_by_supervision(cells: Path, root: Path) -> None:
    for split in SPLITS:
        folder = root / split
        theirs(cells, split).as_pascal_voc(str(folder / "images"), str(folder / "annotations"))


def coco_by_supervision(cells: Path, root: Path) -> None:
    for split in SPLITS:
        theirs(cells, split).as_coco(str(root / split), str(root / f"{split}.json"))


WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "our COCO": lambda cells, root: convert_data(cells, "coco", root),
    "our YOLO": lambda cells, root: convert_data(cells, "yolo", root),
    "supervision's VOC": voc_by_supervision,
    "supervision's COCO": coco_by_supervision,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.slow
def test_every_format_gives_the_same_targets(writer: str, cells: Path, tmp_path: Path) -> None:
    WRITERS[writer](cells, tmp_path)
    for split in SPLITS:
        ours, other = open_split(cells, split), open_split(tmp_path, split)
        assert other.classes == ours.classes
        assert [Path(path).name for path in other.paths] == [Path(path).name for path in ours.paths]
        assert other.sizes.tolist() == ours.sizes.tolist()
        for image in range(SPLITS[split]):
            for found, expected in zip(other.targets(image), ours.targets(image), strict=True):
                assert np.array_equal(found, expected)


def test_supervision_s_yolo_differs_by_its_five_decimals(cells: Path, tmp_path: Path) -> None:
    for split in SPLITS:
        theirs(cells, split).as_yolo(
            str(tmp_path / "images" / split),
            str(tmp_path / "labels" / split),
            str(tmp_path / "data.yaml"),
        )
    (tmp_path / "data.yaml").unlink()
    ours, other = open_split(cells, "train"), open_split(tmp_path, "train")
    assert np.array_equal(other.starts, ours.starts)
    most = 1.1e-5 * ours.sizes.max()
    assert np.abs(other.boxes_xywh - ours.boxes_xywh).max() <= most


@pytest.mark.slow
def test_every_format_trains_to_the_same_losses_and_ap(
    cells: Path, tmp_path: Path, options
) -> None:
    from od_detr.training.fit import fit

    def rows(name: str, data: Path) -> list[dict]:
        chosen = {"queries": 60, "epochs": 1, "batch_size": 2}
        run = fit(options(data=str(data), output=str(tmp_path / "runs" / name), **chosen))
        return [
            {key: value for key, value in row.items() if "second" not in key and "time" not in key}
            for row in run.rows
        ]

    expected = rows("cells", cells)
    for name, write in WRITERS.items():
        folder = tmp_path / name
        write(cells, folder)
        assert rows(name, folder) == expected, name


def test_crowds_and_images_without_objects_survive(sound: dict, write, tmp_path: Path) -> None:
    sound["annotations"][0]["iscrowd"] = 1
    root = write(sound)
    (root / "val.json").write_text((root / "train.json").read_text())
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    convert_data(root, "coco", tmp_path / "coco")
    convert_data(root, "yolo", tmp_path / "yolo", link=True)
    assert {path: path.read_bytes() for path in before} == before
    ours, coco = open_split(root, "train"), open_split(tmp_path / "coco", "train")
    assert coco.crowd.tolist() == ours.crowd.tolist()
    assert coco.image_ids.tolist() == ours.image_ids.tolist()
    assert coco.category_ids == ours.category_ids
    yolo = open_split(tmp_path / "yolo", "train")
    assert len(yolo.names) == 3
    assert len(yolo.labels) == 2


def test_an_undivided_set_stays_undivided(sound: dict, write, tmp_path: Path) -> None:
    root = write(sound)
    (root / "val.json").unlink()
    (root / "train.json").rename(root / "annotations.json")
    for to in ("coco", "yolo"):
        assert set(convert_data(root, to, tmp_path / to)) == {"all"}
        chosen = Choices(val_data=str(root))
        assert len(open_split(tmp_path / to, "train", chosen).names) == 3


def test_nothing_is_overwritten_and_broken_data_is_refused(
    sound: dict, write, tmp_path: Path
) -> None:
    root = write(sound)
    with pytest.raises(InputError, match="--output"):
        convert_data(root, "coco", root)
    (root / "images" / "a.png").unlink()
    with pytest.raises(InputError, match=r"train\.json"):
        convert_data(root, "coco", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_linked_image_is_linked_to_the_file_itself(sound: dict, write, tmp_path: Path) -> None:
    root = write(sound)
    (root / "val.json").unlink()
    image, pool = root / "images" / "a.png", root / "pool.png"
    image.rename(pool)
    image.symlink_to("../pool.png")
    for to in ("coco", "yolo"):
        output = tmp_path / "below" / to
        convert_data(root, to, output, link=True)
        assert next(output.rglob("a.png")).samefile(pool)


def test_an_image_that_yolo_s_reader_cannot_measure_is_refused(
    sound: dict, write, tmp_path: Path
) -> None:
    root = write(sound)
    (root / "val.json").unlink()
    (root / "images" / "a.png").write_text("no image")
    with pytest.raises(InputError, match=rf"train: {root}/images/a\.png: "):
        convert_data(root, "yolo", tmp_path / "yolo")
    assert not (tmp_path / "yolo").exists()
