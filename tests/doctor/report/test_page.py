"""The report is one file that any browser shows: no script, no request, no error."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doctor.conftest import Plants
from tests.doctor.faults import FAULTS

from od_detr.doctor.diagnosis import Diagnosis, Examination, diagnosed
from od_detr.doctor.report.page import as_page, write_page
from od_detr.doctor.report.pictures import OF_A_KIND, WORST, worst
from od_detr.errors import InputError

NAMES = ("no width", "over the right edge", "file empty", "few boxes", "same box, another class")
HOSTILE = "</style><script>alert('x')</script>"


@pytest.fixture
def diagnosis(plants: Callable[..., Plants]) -> Diagnosis:
    """A small set with some faults, and a class whose name is HTML."""
    sick = plants(train=30, val=20)
    for name in NAMES:
        FAULTS[name](sick)
    sick.documents["train"]["categories"][2]["name"] = HOSTILE
    return diagnosed(sick.write(), Examination(image_size=48))


def test_the_page_refers_to_nothing_outside_of_itself(diagnosis: Diagnosis) -> None:
    page = as_page(diagnosis)
    targets = re.findall(r"""(?:href|src|url)\s*[=(]\s*["']?([^"'\s)]*)""", page)
    assert len(targets) > 10
    assert all(target.startswith("data:image/") for target in targets)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_every_problem_is_on_the_page(diagnosis: Diagnosis) -> None:
    page = as_page(diagnosis)
    assert page.count('<section class="problem') == len(diagnosis.problems) > len(NAMES)


def test_the_worst_images_show_the_costly_problems_first(diagnosis: Diagnosis) -> None:
    shown = worst(diagnosis)
    assert 0 < len(shown) <= WORST
    problems = [each.problem for each in shown]
    assert all(problem is not None for problem in problems)
    places = [diagnosis.problems.index(problem) for problem in problems if problem is not None]
    assert places == sorted(places)
    assert max(places.count(place) for place in places) <= OF_A_KIND


def test_a_file_of_the_user_is_not_overwritten(diagnosis: Diagnosis, tmp_path: Path) -> None:
    notes = tmp_path / "notes.html"
    notes.write_text("my notes")
    with pytest.raises(InputError, match=r"notes\.html"):
        write_page(diagnosis, notes)
    assert notes.read_text() == "my notes"
    write_page(diagnosis, tmp_path / "new" / "data.html")
    write_page(diagnosis, tmp_path / "new" / "data.html")
    with pytest.raises(InputError, match="new"):
        write_page(diagnosis, tmp_path / "new")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_request_or_error(
    diagnosis: Diagnosis, tmp_path: Path, width: int, scheme: str
) -> None:
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    file = tmp_path / "data.html"
    write_page(diagnosis, file)
    requests: list[str] = []
    errors: list[str] = []
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        shown = page.evaluate("[...document.images].every(each => each.naturalWidth > 0)")
        wide = page.evaluate("document.documentElement.scrollWidth")
        colours = page.evaluate(
            "(style => [style.color, style.backgroundColor])(getComputedStyle(document.body))"
        )
        browser.close()
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    assert errors == []
    assert shown
    assert wide <= width
    text, ground = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert (text > ground) == (scheme == "dark")
