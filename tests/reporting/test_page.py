"""A page needs no other file and shows text as it is."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from od_detr.reporting.page import code, folded, page, paragraph, picture


@pytest.mark.parametrize("element", [paragraph, code, lambda text: page(text, [])])
def test_text_never_becomes_markup(element) -> None:
    assert "<script>" not in element("<script>alert(1)</script>")


def test_a_picture_is_inside_the_page(tmp_path: Path) -> None:
    file = tmp_path / "curves.png"
    file.write_bytes(b"\x89PNG and so on")
    written = page("Curves", [picture(file, "AP")])
    sources = re.findall(r'src="([^"]*)"', written)
    assert [base64.b64decode(source.partition(",")[2]) for source in sources] == [file.read_bytes()]
    assert "http" not in written


def test_the_elements_keep_their_order() -> None:
    written = page("Rows", [paragraph("first"), folded("more", ["second", "third"])])
    assert written.index("first") < written.index("second") < written.index("third")
