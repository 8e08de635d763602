"""Random damage to the files we read is refused on one line, or the file is used as it is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hostile.harness import DEFECT, FINE, REFUSED, Case, outcome
from tests.hostile.material import open_data
from tests.hostile.weight_cases import CONFIG, LAST, PREVIOUS, WEIGHTS, online, predict, resume

pytestmark = pytest.mark.slow
QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**62, max_value=2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "drop", "repeat", "insert"]),
        st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value in nested lists and objects."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def replaced(document: Any, path: tuple, value: Any) -> Any:
    """The document with another value at a path."""
    if not path:
        return value
    copy = json.loads(json.dumps(document))
    owner = copy
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    return copy


def edited(content: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    """The bytes after some damage."""
    for share, what, extra in edits:
        place = int(share * max(0, len(content) - 1))
        before, after = content[:place], content[place:]
        content = {
            "flip": before + bytes([after[0] ^ 1]) + after[1:] if after else content,
            "cut": before,
            "drop": before + after[8:],
            "repeat": before + after[:16] + after,
            "insert": before + extra + after,
        }[what]
    return content


def ends_well(
    material: Path,
    spoil: Callable[[Path], object],
    use: Callable[[Path], list[str]],
    kinds: tuple[str, ...],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = outcome(Case("mutation", "", spoil, use), material, Path(folder) / "case")
    assert found.kind != DEFECT, found.line
    assert not found.wrongs, found
    assert not kinds or found.kind in kinds, found


@QUICK
@given(data=st.data(), value=VALUES)
def test_another_value_anywhere_in_an_annotation_file(
    material: Path, data: st.DataObject, value: Any
) -> None:
    name = "data/train.json"
    document = json.loads((material / name).read_text())
    path = data.draw(st.sampled_from(places(document)))
    text = json.dumps(replaced(document, path, value))
    ends_well(material, lambda folder: (folder / name).write_text(text), open_data, ())


@QUICK
@given(data=st.data(), value=VALUES)
def test_another_value_anywhere_in_a_configuration(
    material: Path, data: st.DataObject, value: Any
) -> None:
    document = json.loads((material / CONFIG).read_text())
    path = data.draw(st.sampled_from(places(document)))
    text = json.dumps(replaced(document, path, value))
    ends_well(material, lambda folder: (folder / CONFIG).write_text(text), predict, ())


@pytest.mark.parametrize("name", ["data/train.json", CONFIG])
@QUICK
@given(edits=EDITS)
def test_other_bytes_in_a_text_that_is_read(name: str, material: Path, edits: Any) -> None:
    content = edited((material / name).read_bytes(), edits)
    use = predict if name == CONFIG else open_data
    ends_well(material, lambda folder: (folder / name).write_bytes(content), use, ())


@pytest.mark.parametrize("name", [WEIGHTS, LAST])
@QUICK
@given(edits=EDITS)
def test_other_bytes_in_weights_are_always_refused(name: str, material: Path, edits: Any) -> None:
    original = (material / name).read_bytes()
    content = edited(original, edits)
    use = predict if name == WEIGHTS else online

    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content)
        (folder / PREVIOUS).unlink(missing_ok=True)

    ends_well(material, spoil, use, (FINE,) if content == original else (REFUSED,))


@QUICK
@given(edits=EDITS)
def test_other_bytes_in_the_options_of_a_run(material: Path, edits: Any) -> None:
    name = "run/config.yaml"
    content = edited((material / name).read_bytes(), edits)
    ends_well(material, lambda folder: (folder / name).write_bytes(content), resume, ())
