"""A sample is what the file says, always the same, or a plain complaint."""

from __future__ import annotations

import json
import random
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from od_detr.data.dataset import CocoDataset
from od_detr.data.sampling.composition import Draw
from od_detr.data.transforms import Transform
from od_detr.errors import InputError


def write_again(folder: Path, document: dict) -> Path:
    (folder / "train.json").write_text(json.dumps(document))
    return folder


def test_images_without_boxes_are_kept(sound: dict, write) -> None:
    dataset = CocoDataset.from_folder(write(sound), "train")
    sample = dataset[2]
    assert (len(dataset), sample.image_id, sample.size) == (3, 20, (20, 20))
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == (0,)


def test_a_sample_without_transform_is_the_file(sound: dict, write) -> None:
    folder = write(sound)
    sample = CocoDataset.from_folder(folder, "train")[0]
    assert sample.image.dtype == torch.uint8
    assert np.array_equal(sample.image.permute(1, 2, 0), Image.open(folder / "images" / "a.png"))
    assert sample.boxes.tolist() == [[0.5, 0.5, 1, 1]]


def test_a_place_may_be_counted_from_the_end_but_not_beyond(sound: dict, write) -> None:
    dataset = CocoDataset.from_folder(write(sound), "train")
    assert dataset[-1].image_id == dataset[2].image_id
    assert dataset[-1].boxes.shape == (0, 4)
    with pytest.raises(IndexError):
        dataset[3]


def test_an_image_of_another_size_than_its_entry_says_is_refused(sound: dict, write) -> None:
    sound["images"][0]["width"] = 30
    dataset = CocoDataset.from_folder(write(sound), "train")
    with pytest.raises(
        InputError, match=r"train\.json: image 30: .*a\.png: is 40 x 30 pixels.*width 30"
    ):
        dataset[0]


def test_a_truncated_image_is_one_line_with_file_and_id(sound: dict, write) -> None:
    folder = write(sound)
    file = folder / "images" / "b.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    before = file.read_bytes()
    dataset = CocoDataset.from_folder(folder, "train")
    with pytest.raises(InputError, match=r"image 10: .*b\.jpg") as error:
        dataset[1]
    assert len(str(error.value).splitlines()) == 1
    assert file.read_bytes() == before, "the user's file was changed"


@pytest.mark.parametrize("place", ["images/train/deep", "images/train", "images", "."])
def test_a_file_name_is_looked_up_from_the_image_folder_up_to_the_data_set(
    sound: dict, write, place: str
) -> None:
    folder = write(sound)
    (folder / "images" / "train" / "deep").mkdir(parents=True)
    for image in sound["images"]:
        (folder / "images" / image["file_name"]).rename(folder / place / image["file_name"])
        if place == "images/train/deep":
            image["file_name"] = f"deep/{image['file_name']}"
    dataset = CocoDataset.from_folder(write_again(folder, sound), "train")
    assert [dataset[index].image_id for index in range(3)] == [30, 10, 20]


def test_a_file_name_is_never_looked_up_outside_the_data_set(sound: dict, write) -> None:
    folder = write(sound)
    (folder / "inner").mkdir()
    (folder / "train.json").rename(folder / "inner" / "train.json")
    (folder / "images").rename(folder / "inner" / "images")
    (folder / "inner" / "images" / "a.png").rename(folder / "a.png")
    with pytest.raises(InputError, match=r"image 30: file_name 'a\.png' is not a file below"):
        CocoDataset.from_folder(folder / "inner", "train")


def test_the_same_seed_epoch_and_image_give_the_same_sample(sound: dict, write) -> None:
    folder = write(sound)
    first = CocoDataset.from_folder(folder, "train", Transform(64, "detr"), seed=3)
    sound["images"].reverse()
    other_order = CocoDataset.from_folder(
        write_again(folder, sound), "train", Transform(64, "detr"), seed=3
    )
    for epoch in range(4):
        torch.manual_seed(epoch)
        a, b = first[Draw(epoch, 1)], other_order[Draw(epoch, 1)]
        assert a.image_id == b.image_id
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.boxes, b.boxes)


def test_copies_of_an_image_in_one_epoch_are_augmented_in_different_ways(
    sound: dict, write
) -> None:
    dataset = CocoDataset.from_folder(write(sound), "train", Transform(64, "detr"), seed=3)
    shapes = {tuple(dataset[Draw(0, 1, copy)].image.shape) for copy in range(12)}
    assert len(shapes) > 4
    assert torch.equal(dataset[Draw(0, 1, 0)].image, dataset[1].image)


def test_seed_and_epoch_both_change_the_augmentation(sound: dict, write) -> None:
    folder = write(sound)

    def shapes(seed: int, epochs: range) -> list[torch.Size]:
        dataset = CocoDataset.from_folder(folder, "train", Transform(64, "detr"), seed=seed)
        return [dataset[Draw(epoch, 1)].image.shape for epoch in epochs]

    assert len(set(shapes(0, range(12)))) > 4
    assert shapes(0, range(12)) != shapes(1, range(12))
    assert shapes(0, range(12)) == [*shapes(0, range(5)), *shapes(0, range(5, 12))]


def test_samples_draw_nothing_from_global_randomness(sound: dict, write) -> None:
    dataset = CocoDataset.from_folder(write(sound), "train", Transform(64, "detr"))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    dataset[Draw(5, 0)]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("name", ["coco_tiny", "bccd", "coco_cc"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_public_data_sets_open_with_the_boxes_pycocotools_counts(
    shared_data: Path, name: str, split: str
) -> None:
    dataset = CocoDataset.from_folder(shared_data / name, split)
    coco = COCO(str(dataset.annotations.file))
    things = coco.loadAnns(coco.getAnnIds(iscrowd=0))
    assert dataset.annotations.image_ids.tolist() == coco.getImgIds()
    assert dataset.dropped.crowd == len(coco.getAnnIds(iscrowd=1))
    assert len(dataset.annotations.labels) == len(things) + dataset.dropped.crowd
    assert dataset.dropped.degenerate == sum(
        thing["bbox"][2] * thing["bbox"][3] == 0 for thing in things
    )
    assert dataset.category_ids == tuple(sorted(coco.getCatIds()))
    assert dataset.most_targets == max(
        len(coco.getAnnIds([i], iscrowd=0)) for i in coco.getImgIds()
    )

    for place in Random(0).sample(range(len(dataset)), 5):
        sample = dataset[place]
        theirs = coco.loadAnns(coco.getAnnIds([sample.image_id], iscrowd=0))
        height, width = sample.size
        assert sample.image.shape == (3, height, width)
        assert [dataset.category_ids[label] for label in sample.labels] == [
            thing["category_id"] for thing in theirs
        ]
        corner = (sample.boxes[:, :2] - sample.boxes[:, 2:] / 2) * torch.tensor([width, height])
        for mine, thing in zip(corner.tolist(), theirs, strict=True):
            assert mine == pytest.approx(thing["bbox"][:2], abs=0.02)


def test_a_real_crowd_is_there_to_be_dropped(shared_data: Path) -> None:
    splits = [
        CocoDataset.from_folder(shared_data / "coco_tiny", split) for split in ("train", "val")
    ]
    assert sum(split.dropped.crowd for split in splits) > 0
