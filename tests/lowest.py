"""Installs the lowest version of every dependency and runs the four everyday commands with them.

    python tests/lowest.py --environment FOLDER           # everything, torch too
    python tests/lowest.py --environment FOLDER --reuse   # torch as it is installed here

The lower bounds of pyproject.toml are only what this script was run with. `--reuse` saves the
download of torch: what has no pin comes from the environment that runs this script, and so do torch
and torchvision.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = ("torch", "torchvision")
# Not part of a plain installation.
EXTRAS = ("transformers", "onnx", "simplejpeg", "tensorboard", "od_detr", "__editable__")
TINY = [
    *("--backbone", "resnet18", "--backbone-weights", "none", "--hidden-dim", "32"),
    *("--encoder-layers", "1", "--decoder-layers", "2", "--queries", "12", "--image-size", "64"),
    *("--feedforward", "64", "--batch-size", "2", "--workers", "0"),
    *("--device", "cpu", "--epochs", "1"),
]
SCENES = "from od_detr.data.scenes import render_scenes; render_scenes('scenes', 4, 2, 64)"
# Saves the run's weights as the official code would, for `convert`.
OFFICIAL = """
import torch
from safetensors.torch import load_file
from od_detr.integrations.weights.official import to_official
weights = load_file("run/best/model.safetensors")
torch.save({"model": to_official(weights, "deformable-detr-plus")}, "official.pth")
"""


def lowest(project: Path) -> dict[str, str]:
    """The lower bound of every dependency of a project."""
    pins = {}
    for requirement in tomllib.loads(project.read_text())["project"]["dependencies"]:
        found = re.fullmatch(r"([\w-]+)>=([\w.]+)(?:,.*)?", requirement)
        if found is None:
            raise SystemExit(f"{project}: '{requirement}' has no lower bound")
        pins[found[1]] = found[2]
    return pins


def install(folder: Path, pins: dict[str, str], reuse: bool) -> Path:
    """Creates the environment and returns its Python."""
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    if reuse:
        pins = {name: version for name, version in pins.items() if name not in TORCH}
        # Names of a .pth file come last on the path: what is pinned wins.
        shared = borrowed(Path(sysconfig.get_paths()["purelib"]), folder / "borrowed")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        file = folder / "lib" / version / "site-packages" / "borrowed.pth"
        file.write_text(f"{ROOT / 'src'}\n{shared}\n")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = [f"{name}=={version}" for name, version in pins.items()]
    if reuse:
        run([*pip, "--no-deps", "--ignore-installed", *wanted])
    else:
        run([*pip, *wanted, "--editable", str(ROOT)])
    return python


def borrowed(packages: Path, folder: Path) -> Path:
    """Links to installed packages, without those that a plain installation does not have."""
    folder.mkdir()
    for package in packages.iterdir():
        if not package.name.startswith(EXTRAS):
            (folder / package.name).symlink_to(package)
    return folder


def smoke(python: Path, folder: Path) -> None:
    """Trains, evaluates, predicts and converts in a folder."""
    command = [str(python), "-m", "od_detr.cli"]
    run([str(python), "-c", SCENES], folder)
    run([*command, "train", "--data", "scenes", "--output", "run", *TINY], folder)
    run([*command, "evaluate", "run", "--data", "scenes"], folder)
    run([*command, "predict", "run", "scenes/images/val", "--output", "predictions"], folder)
    run([str(python), "-c", OFFICIAL], folder)
    run([*command, "convert", "official.pth", "--output", "converted"], folder)


def run(command: list[str], folder: Path = ROOT) -> None:
    """Runs a command and stops everything if it fails."""
    print("$", " ".join(command)[:200], flush=True)
    subprocess.run(command, cwd=folder, check=True)


def main() -> None:
    """Reads the arguments, installs and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, required=True, help="Folder to create.")
    parser.add_argument("--reuse", action="store_true", help="Use torch as it is installed here.")
    arguments = parser.parse_args()
    pins = lowest(ROOT / "pyproject.toml")
    python = install(arguments.environment.resolve(), pins, arguments.reuse)
    with tempfile.TemporaryDirectory() as folder:
        smoke(python, Path(folder))
    print("lowest versions:", " ".join(f"{name} {version}" for name, version in pins.items()))


if __name__ == "__main__":
    main()
