"""Compiles C++ sources of this package on first use and keeps the library in the user's cache.

The library is a plain C one: no PyTorch headers, so it builds in seconds and outlives PyTorch's
versions.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

logger = logging.getLogger(__name__)

COMPILERS = ("c++", "g++", "clang++")
# Only what nobody observes is given up, so that the loops vectorise. Not -ffast-math and not
# -fno-signed-zeros, with which GCC 12 takes 0 * NaN for 0: a NaN must reach the loss.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-shared",
    "-fPIC",
    "-pthread",
)
SECONDS = 120


def load_library(*source_names: str) -> ctypes.CDLL | None:
    """The library of source files beside this module, or None, with one debug line, where it cannot
    be had.

    The files are one translation unit, joined in the order given; the last gives the library its
    name.
    """
    try:
        return ctypes.CDLL(str(_built(source_names)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.debug("no compiled %s: %s", source_names[-1], error)
        return None


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/od_detr`, by default `~/.cache/od_detr`.

    Raises:
        RuntimeError: there is no home directory.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "od_detr"


def _built(source_names: tuple[str, ...]) -> Path:
    source = b"".join(files("od_detr.ops").joinpath(name).read_bytes() for name in source_names)
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError(f"none of {', '.join(COMPILERS)} is on the PATH")
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, check=True, timeout=SECONDS
    ).stdout
    parts = (source, version, " ".join(FLAGS).encode(), _processor().encode())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    library = cache_directory() / f"{Path(source_names[-1]).stem}-{key}.so"
    if not library.exists():
        _compile(compiler, source, library)
    return library


def _compile(compiler: str, source: bytes, library: Path) -> None:
    """Builds under a temporary name and renames, so that processes may race and none sees half a
    file.
    """
    library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built = Path(folder) / library.name
        for native in (["-march=native"], []):  # some compilers know no native target
            command = [compiler, *FLAGS, *native, "-x", "c++", "-", "-o", str(built)]
            result = subprocess.run(command, input=source, capture_output=True, timeout=SECONDS)
            if result.returncode == 0:
                os.replace(built, library)
                return
    lines = result.stderr.decode(errors="replace").splitlines() or ["no message"]
    raise OSError(f"{compiler} failed: {lines[0]}")


def _processor() -> str:
    """What `-march=native` depends on: home directories are shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    kinds = {
        line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))
    }
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *sorted(kinds)])
