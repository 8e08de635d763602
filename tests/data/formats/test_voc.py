"""Pascal VOC data sets that are arranged or written in unusual ways are read right, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.formats.test_layouts import SIZE, voc

from od_detr.data.folders import find_readers
from od_detr.data.formats.choices import ALL


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
