"""The doctor finds every fault that is there, and none that is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doctor.conftest import Plants, picture
from tests.doctor.faults import FAULTS, Expected

from od_detr.data.writing.conversion import convert_data
from od_detr.doctor.checks.fit import Model
from od_detr.doctor.diagnosis import Diagnosis, Examination, diagnosed
from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.ranks import Ranks
from od_detr.training.setup.opening import open_data

EXAMINATION = Examination(image_size=48, model=Model("dino-4scale", 50))


def is_found(expected: Expected, diagnosis: Diagnosis) -> bool:
    code, split, text = expected
    return any(
        text in example
        for problem in diagnosis.problems
        if problem.code == code and problem.split == split
        for example in problem.examples
    )


def test_a_sound_data_set_has_no_problem(plants: Callable[..., Plants]) -> None:
    data = plants(train=40, val=20, test=20).write()
    assert [problem.examples for problem in diagnosed(data, EXAMINATION).problems] == []


@pytest.mark.slow
def test_each_of_many_faults_among_500_images_is_found(plants: Callable[..., Plants]) -> None:
    sick = plants(train=400, val=60, test=40)
    expected = {name: plant(sick) for name, plant in FAULTS.items()}
    assert len(expected) >= 60
    diagnosis = diagnosed(sick.write(), EXAMINATION)
    missed = {name: each for name, each in expected.items() if not is_found(each, diagnosis)}
    assert missed == {}


def test_what_stops_a_training_comes_first_and_then_what_costs_most(
    plants: Callable[..., Plants],
) -> None:
    sick = plants(train=60, val=20)
    for name in ("no width", "transparent", "file empty", "few boxes"):
        FAULTS[name](sick)
    problems = diagnosed(sick.write(), EXAMINATION).problems
    severities = [problem.severity for problem in problems]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    costs = [problem.cost for problem in problems if problem.severity == "warning"]
    assert costs == sorted(costs, reverse=True)
    assert all(0 < cost < 1 for cost in costs)


def test_without_decoding_what_pixels_show_is_not_found(plants: Callable[..., Plants]) -> None:
    sick = plants(train=40, val=20)
    header, pixels = (FAULTS[name](sick) for name in ("file is a text", "dark"))
    examination = Examination(image_size=48, decode=False)
    diagnosis = diagnosed(sick.write(), examination)
    assert is_found(header, diagnosis)
    assert not is_found(pixels, diagnosis)


def coco(plants: Plants) -> Path:
    return plants.write()


def yolo(plants: Plants) -> Path:
    output = plants.root.parent / "yolo"
    convert_data(plants.write(), "yolo", output)
    return output


def voc_without_sizes(plants: Plants) -> Path:
    for split in plants.documents:
        for image in (plants.root / "images" / split).iterdir():
            (plants.root / split).mkdir(exist_ok=True)
            target = image.rename(plants.root / split / image.name)
            right = 20 + int(image.stem) % 40
            box = f"<xmin>1</xmin><ymin>3</ymin><xmax>{right}</xmax><ymax>20</ymax>"
            target.with_suffix(".xml").write_text(
                f"<annotation><filename>{image.name}</filename><object><name>cell</name>"
                f"<bndbox>{box}</bndbox></object></annotation>"
            )
    return plants.root


def stops_a_training(data: Path, options: Callable[..., TrainOptions]) -> bool:
    try:
        open_data(options(data=str(data)), Ranks())
    except InputError:
        return True
    return False


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("damage", ["text", "absent"])
@pytest.mark.parametrize("write", [coco, yolo, voc_without_sizes])
def test_images_that_cannot_be_used_count_as_in_training(
    write: Callable[[Plants], Path],
    damage: str,
    count: int,
    plants: Callable[..., Plants],
    options: Callable[..., TrainOptions],
) -> None:
    data = write(plants(train=40, val=20))
    images = sorted(path for path in data.rglob("*.jpg") if "train" in path.parent.parts)
    for image in images[:count]:
        image.write_text("no image") if damage == "text" else image.unlink()
    diagnosis = diagnosed(data, Examination(image_size=48, decode=False))
    assert bool(diagnosis.errors) == stops_a_training(data, options)
    costs = [problem for problem in diagnosis.problems if problem.severity != "note"]
    if write is yolo and damage == "absent":  # its images are those that are there
        assert [problem.code for problem in costs] == ["label-without-image"]
    else:
        code = "image-format" if damage == "text" else "image-file"
        assert [(each.code, each.count, each.total) for each in costs] == [(code, count, 40)]


def test_images_of_a_list_whose_folder_is_absent_are_missing(plants: Callable[..., Plants]) -> None:
    data = yolo(plants(train=4, val=2))
    shutil.rmtree(data / "images" / "train")
    (data / "train.txt").write_text("images/train/00001.jpg\nimages/train/00002.jpg\n")
    (data / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [cell, dish, rod]")
    problems = diagnosed(data, EXAMINATION).errors
    assert ("image-missing", "train", 2) in [(p.code, p.split, p.count) for p in problems]


def test_a_data_set_may_be_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(1).save("a.png")
    Path("a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    Path("classes.txt").write_text("cell\n")
    assert diagnosed(Path(), EXAMINATION).errors == ()


@pytest.mark.parametrize("trains", [True, False])
def test_a_faulty_test_split_stops_no_training(trains: bool, plants: Callable[..., Plants]) -> None:
    data = plants(train=40, val=20, test=5).write()
    (data / "test.json").write_text('{"images": []}')
    if not trains:
        for split in ("train", "val"):
            (data / f"{split}.json").unlink()
    found = {each.code: each for each in diagnosed(data, EXAMINATION).problems}
    assert found["section"].split == "test"
    assert found["section"].severity == ("warning" if trains else "error")
