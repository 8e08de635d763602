"""Weights are recognised by what they are, not by how a number in them happens to begin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from od_detr.errors import InputError
from od_detr.weight_files import read_safetensors


@pytest.mark.parametrize("first", [0x80, ord("<")], ids=["pickle", "web page"])
def test_a_header_whose_length_begins_like_another_file_is_read(first: int, tmp_path: Path) -> None:
    file, weight = tmp_path / "model.safetensors", torch.arange(6.0)
    entry = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
    header = json.dumps({"weight": entry}).encode().ljust(256 + first)
    file.write_bytes(len(header).to_bytes(8, "little") + header + weight.numpy().tobytes())
    assert file.read_bytes()[0] == first
    assert torch.equal(read_safetensors(file)["weight"], weight)


@pytest.mark.parametrize(
    ("start", "said"), [(b"\x80\x02}q\x00.", "is a pickle"), (b"<!DOCTYPE html>", "is a web page")]
)
def test_another_kind_of_file_is_named(start: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(start + bytes(64))
    with pytest.raises(InputError, match=said):
        read_safetensors(file)
