"""Pascal VOC data sets that are arranged or written in unusual ways are read right, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.data.formats.test_layouts import SIZE, voc, voc_lists, write

from od_detr.data.folders import find_readers, open_split
from od_detr.data.formats.choices import ALL, Choices


def renamed(file: Path, stem: str) -> None:
    file.rename(file.with_stem(stem))


@pytest.mark.parametrize("width", ["1e99", "1e400", "-5", "nan", "wide", "20000000"])
def test_a_size_that_makes_no_sense_is_that_of_the_file(width: str, tmp_path: Path) -> None:
    voc(tmp_path, tmp_path, "ab")
    xml = tmp_path / "a.xml"
    xml.write_text(xml.read_text().replace(f"<width>{SIZE['a'][1]}<", f"<width>{width}<"))
    read = find_readers(tmp_path)[ALL]()
    assert read.sizes.tolist() == [list(SIZE["a"]), list(SIZE["b"])]


@pytest.mark.parametrize("value", ["1e308", "-1e308", "inf", "nan", "x"])
def test_a_coordinate_that_makes_no_sense_is_a_finding(value: str, tmp_path: Path) -> None:
    voc(tmp_path, tmp_path, "ab")
    xml = tmp_path / "a.xml"
    xml.write_text(xml.read_text().replace("<xmax>22<", f"<xmax>{value}<"))
    (found,) = find_readers(tmp_path)[ALL]().findings
    assert (found.code, found.record) == ("voc-object", "object 1")


def test_images_that_were_renamed_with_their_xml_files_keep_their_boxes(tmp_path: Path) -> None:
    """0002.xml still says a.png, which is another image now."""
    voc(tmp_path / "images", tmp_path / "annotations", "ab")
    for old, new in (("b", "c"), ("a", "b")):
        renamed(tmp_path / "images" / f"{old}.png", new)
        renamed(tmp_path / "annotations" / f"{old}.xml", new)
    read = find_readers(tmp_path)[ALL]()
    assert [Path(path).stem for path in read.paths] == ["b", "c"]
    assert read.starts.tolist() == [0, 1, 3]
    (found,) = read.findings
    assert (found.code, found.severity, found.count) == ("voc-filename", "warning", 1)
    assert str(found).startswith(f"{tmp_path / 'annotations' / 'c.xml'}: filename 'b.png' is not")


def test_the_name_that_is_written_counts_where_no_image_has_the_xml_file_s(tmp_path: Path) -> None:
    voc(tmp_path, tmp_path, "ab")
    renamed(tmp_path / "a.xml", "1")
    read = find_readers(tmp_path)[ALL]()
    assert [Path(path).stem for path in read.paths] == ["a", "b"]
    assert read.findings == ()
    (tmp_path / "2.xml").write_text((tmp_path / "1.xml").read_text())
    (found,) = find_readers(tmp_path)[ALL]().findings
    assert (found.code, found.severity) == ("image-listed-twice", "warning")
    assert "a.png is the image of 2 XML files" in found.problem


def test_folders_are_listed_and_no_name_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voc(tmp_path / "JPEGImages", tmp_path / "Annotations", "abc")
    for number, stem in enumerate("abc"):
        renamed(tmp_path / "Annotations" / f"{stem}.xml", str(number))
    (tmp_path / "JPEGImages" / "loop.png").symlink_to("loop.png")
    asked, stat = [], os.stat

    def recorded(path: os.PathLike[str] | str, **more: bool) -> os.stat_result:
        asked.append(os.fspath(path))
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", recorded)
    read = find_readers(tmp_path)[ALL]()
    assert [Path(path).stem for path in read.paths] == list("abc")
    assert {name for name in asked if name.endswith((".png", ".jpg"))} <= {
        str(tmp_path / "JPEGImages" / "loop.png")
    }


def test_of_two_suffixes_the_one_that_is_written_counts(tmp_path: Path) -> None:
    voc(tmp_path, tmp_path, "a")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    assert Path(find_readers(tmp_path)[ALL]().paths[0]).name == "a.png"


@pytest.mark.parametrize("ending", ["", "  1", " -1", "\r"])
def test_names_in_lists_may_have_blanks(ending: str, tmp_path: Path) -> None:
    voc_lists(tmp_path)
    for folder, suffix in (("JPEGImages", "png"), ("Annotations", "xml")):
        for stem in "ab":
            renamed(tmp_path / folder / f"{stem}.{suffix}", f"my {stem} 1")
    write(tmp_path / "ImageSets/Main/train.txt", f"my a 1{ending}\nmy b 1{ending}\nc{ending}\n")
    read = open_split(tmp_path, "train")
    assert [Path(path).stem for path in read.paths] == ["my a 1", "my b 1", "c"]
    assert read.findings == ()


@pytest.mark.parametrize("devkit", ["", "VOCdevkit"])
def test_several_years_are_one_data_set(devkit: str, tmp_path: Path) -> None:
    for year in ("2007", "2012"):
        voc_lists(tmp_path / devkit / f"VOC{year}")
    train = open_split(tmp_path, "train")
    assert [Path(path).parts[-3:] for path in train.paths] == [
        (f"VOC{year}", "JPEGImages", f"{stem}.png") for year in ("2007", "2012") for stem in "abc"
    ]
    assert len(open_split(tmp_path, "val").paths) == 2


def test_a_year_that_is_also_there_as_a_link_is_read_once(tmp_path: Path) -> None:
    voc_lists(tmp_path / "VOCdevkit" / "VOC2007")
    (tmp_path / "VOC2007").symlink_to(tmp_path / "VOCdevkit" / "VOC2007")
    for split, count in (("train", 3), ("val", 1)):
        read = open_split(tmp_path, split)
        assert (len(read.paths), read.findings) == (count, ())


def test_a_name_in_two_years_is_counted_in_each_split(tmp_path: Path) -> None:
    """As in VOC0712, which some tools merge beside the years that it is made of."""
    voc_lists(tmp_path / "VOC2007")
    voc(tmp_path / "VOC0712" / "JPEGImages", tmp_path / "VOC0712" / "Annotations", "abd")
    write(tmp_path / "VOC0712" / "ImageSets" / "Main" / "trainval.txt", "a\nb\nd\n")
    for split, count, name in (("train", 5, "a"), ("val", 1, "d")):
        (found,) = open_split(tmp_path, split).findings
        assert (found.code, found.severity, found.count) == ("voc-years", "warning", count)
        assert found.problem == f"{name!r} is in VOC0712 and VOC2007"


def test_years_of_different_pictures_are_joined_without_a_word(tmp_path: Path) -> None:
    for year, stems in (("2007", "ab"), ("2012", "cd")):
        root = tmp_path / f"VOC{year}"
        voc(root / "JPEGImages", root / "Annotations", stems)
        write(root / "ImageSets" / "Main" / "train.txt", "\n".join(stems))
    read = open_split(tmp_path, "train", Choices(val_data="elsewhere"))
    assert ([Path(path).stem for path in read.paths], read.findings) == (list("abcd"), ())


def test_a_list_with_a_path_is_an_error_of_that_file_also_with_several_years(
    tmp_path: Path,
) -> None:
    for year in ("2007", "2012"):
        voc_lists(tmp_path / f"VOC{year}")
        write(tmp_path / f"VOC{year}" / "ImageSets" / "Main" / "val.txt", f"/nowhere/{year}\n")
    errors = [each for each in open_split(tmp_path, "val").findings if each.code == "xml"]
    assert [each.source for each in errors] == ["/nowhere/2007.xml", "/nowhere/2012.xml"]


@pytest.mark.parametrize("listed", ["2007", "2012"])
def test_a_year_without_lists_is_left_out_beside_one_with_lists(
    listed: str, tmp_path: Path
) -> None:
    voc_lists(tmp_path / f"VOC{listed}")
    bare = tmp_path / ("VOC2012" if listed == "2007" else "VOC2007")
    voc(bare / "JPEGImages", bare / "Annotations", "ab")
    for split, stems in (("train", "abc"), ("val", "d")):
        read = open_split(tmp_path, split)
        assert [Path(path).parts[-3] for path in read.paths] == [f"VOC{listed}"] * len(stems)
        (found,) = read.findings
        assert (found.code, found.severity) == ("voc-lists", "warning")
        assert str(found).startswith(f"{bare}: no lists in ImageSets/Main")
        assert "2 XML files not read; add the lists" in str(found)
