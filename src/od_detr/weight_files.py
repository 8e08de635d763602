"""Files of weights, read without trusting them: no code is run, and every claim is checked."""

from __future__ import annotations

import pickle
import re
import reprlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from od_detr.errors import InputError, first_line

LONGEST_NAME = 200  # of a tensor, as messages show it
# The header of a detector with a thousand tensors takes 100 kB.
MAX_HEADER_BYTES = 16 * 2**20
# How files that people mistake for weights begin, and what to do about each.
OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the weights; run 'git lfs pull' in its repository",
    ),
    (b"<", "is a web page, not weights; download the file itself"),
    (b"\x1f\x8b", "is a gzip archive; unpack it first"),
    (b"\x89HDF", "is an HDF5 file of another framework; save its weights with safetensors"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"\x93NUMPY", "is a NumPy array; save the weights with safetensors"),
    (b"GGUF", "is a GGUF file of another framework; save its weights with safetensors"),
)
PICKLES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "is a PyTorch checkpoint, not safetensors; save its weights with safetensors"),
    (b"\x80", "is a pickle, which can run code and is not loaded; save it with safetensors"),
)


def check_kind(file: Path, others: tuple[tuple[bytes, str], ...] = OTHER_KINDS) -> None:
    """Refuses a file that is recognised as something else than weights.

    Raises:
        InputError: the file cannot be opened, is empty, or begins like one of `others`.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(32)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a file of weights") from error
    if not start:
        raise InputError(f"{file}: the file is empty; save or download it again")
    if start[8:9] == b"{":
        return  # safetensors: eight bytes of a length, which may begin like anything, then JSON
    for beginning, what in others:
        if start.startswith(beginning):
            raise InputError(f"{file}: {what}")


def read_safetensors(file: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    With `expected` (tensors on any device, "meta" included) the names, shapes and types in the
    file's header are compared with it before a tensor is read.

    Raises:
        InputError: another kind of file, a damaged one, tensors that differ from `expected`, or
            values that are not finite.
    """
    with _reading(file):
        with safe_open(file, framework="pt") as opened:
            if expected is not None:
                slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
                claimed = {
                    name: (tuple(part.get_shape()), str(part.get_dtype()))
                    for name, part in slices.items()
                }
                _compare(file, claimed, expected)
        weights = load_file(file)
    check_finite(file, weights)
    return weights


def read_metadata(file: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file, put there by the program that wrote it.

    Raises:
        InputError: another kind of file, or a damaged one.
    """
    with _reading(file), safe_open(file, framework="pt") as opened:
        return dict(opened.metadata() or {})


def read_pickled(file: Path, allowed: Sequence[type] = ()) -> Any:
    """The content of a PyTorch file: tensors and plain values. Code in it is never executed.

    Args:
        file: the file.
        allowed: harmless classes that it may hold besides.

    Raises:
        InputError: another kind of file, a damaged one, or one that holds anything else.
    """
    check_kind(file)
    check_archive(file)
    try:
        quiet = warnings.catch_warnings(action="ignore")  # torch's are advice to programmers
        with quiet, torch.serialization.safe_globals(list(allowed)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise InputError(
                f"{file}: is damaged, or a plain pickle, which is never loaded since it can run "
                "code; download it again, or save its weights alone with safetensors"
            ) from error
        raise InputError(
            f"{file}: holds more than tensors ({reprlib.repr(foreign[1])}), which is never loaded "
            "since it can run code; if you trust the file, save its weights alone with safetensors"
        ) from error
    # torch.load raises six unrelated types for a damaged file, some with advice that is wrong here.
    except Exception as error:
        raise InputError(
            f"{file}: cannot be read as a PyTorch checkpoint; the file is damaged or another kind "
            "of file, download it again"
        ) from error


def check_archive(file: Path) -> None:
    """Refuses a zip archive that is not a PyTorch file, before anything in it is unpacked.

    PyTorch stores its entries as they are. So compressed ones, or more bytes than the file has, are
    damage or a bomb.

    Raises:
        InputError: saying which.
    """
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise InputError(f"{file}: is damaged; save or download it again") from error
    claimed = sum(entry.file_size for entry in entries)
    if claimed > file.stat().st_size:
        raise InputError(
            f"{file}: claims to unpack to {claimed} bytes, more than the file has; it is damaged "
            "or made to fill memory, and is not loaded"
        )
    if not any(entry.filename.endswith(("data.pkl", "constants.pkl")) for entry in entries):
        raise InputError(f"{file}: is a zip archive but no PyTorch checkpoint; give another file")


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Refuses what is not a safetensors file, and one whose header claims too much."""
    check_kind(file, OTHER_KINDS + PICKLES)
    with file.open("rb") as opened:
        header = int.from_bytes(opened.read(8), "little")
    if header > min(MAX_HEADER_BYTES, file.stat().st_size):
        raise InputError(
            f"{file}: its header claims {header} bytes; the file is damaged, save or download it "
            "again"
        )
    try:
        yield
    except InputError:
        raise
    except (SafetensorError, ValueError, OSError, MemoryError) as error:
        raise InputError(
            f"{file}: cannot be read ({first_line(error)}); the file is damaged, save or "
            "download it again"
        ) from error


def check_weights(
    source: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Refuses weights that are not exactly those `expected`: names, shapes, types, finite values.

    Raises:
        InputError: naming the first tensor that differs.
    """
    claimed = {
        name: (tuple(value.shape), _SHORT.get(value.dtype, str(value.dtype)))
        for name, value in weights.items()
    }
    _compare(source, claimed, expected)
    check_finite(source, weights)


def check_finite(source: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuses weights with a value that is infinite or not a number.

    Raises:
        InputError: naming the first such tensor.
    """
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(
                f"{source}: '{name}' holds values that are not finite; use an earlier copy"
            )


def _compare(
    source: Path,
    claimed: Mapping[str, tuple[tuple[int, ...], str]],
    expected: Mapping[str, Tensor],
) -> None:
    for name in sorted(expected.keys() | claimed.keys()):
        shown = repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")
        if name not in claimed:
            raise InputError(f"{source}: has no {shown}; these weights do not fit config.json")
        if name not in expected:
            raise InputError(
                f"{source}: {shown} has no place in the detector; these weights do not fit "
                "config.json"
            )
        shape, dtype = claimed[name]
        wanted = tuple(expected[name].shape)
        if shape != wanted:
            raise InputError(
                f"{source}: '{name}' is {shape}, config.json asks for {wanted}; "
                "give the matching config.json"
            )
        if dtype != _SHORT[expected[name].dtype]:
            raise InputError(
                f"{source}: '{name}' is of type {dtype}, not {_SHORT[expected[name].dtype]}; "
                "save it in that type"
            )


# Types as safetensors abbreviates them.
_SHORT = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
