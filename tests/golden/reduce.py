"""Reduces a full set of golden numbers to the one that is kept in this repository.

    python tests/golden/reduce.py SOURCE tests/golden/recorded

Every weight, input, output, loss and matching stays as it is. Three things are smaller:

- A weight that the official state dict holds under several names is kept under one of them.
- A gradient of more than ``SAMPLE`` entries is sampled: evenly spaced places and its largest entry.
- JSON files are written without blanks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SAMPLE = 12
GRADIENTS = ("grads", "dn_a_grads")
# Its rows are counted when official names are translated into ours.
WHOLE = {"label_enc.weight"}


def sampled(gradient: Tensor) -> Tensor:
    """Places and values of a sample: two rows, [2, SAMPLE]. Small gradients stay whole.

    A flat place below 2**24 is exact in float32. The last column is the largest entry by magnitude,
    which the tests scale their tolerance by.
    """
    if gradient.numel() <= SAMPLE:
        return gradient
    flat = gradient.flatten()
    assert len(flat) < 2**24
    even = torch.linspace(0, len(flat) - 1, SAMPLE - 1).round().long()
    places = torch.cat([even, flat.abs().argmax()[None]])
    return torch.stack([places.to(flat.dtype), flat[places]])


def at_sample(gradient: Tensor, recorded: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of a gradient that were recorded, and what was recorded of them."""
    if gradient.shape == recorded.shape:
        return gradient, recorded
    places, values = recorded
    return gradient.flatten()[places.long()], values


def once(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights without the second names of heads that the detector shares with its decoder.

    Names that only differ by the prefix ``transformer.decoder.`` are the same head.
    """
    doubled = {name for name in weights if f"transformer.decoder.{name}" in weights}
    assert all(
        torch.equal(weights[name], weights[f"transformer.decoder.{name}"]) for name in doubled
    )
    return {name: tensor for name, tensor in weights.items() if name not in doubled}


def reduce_model(source: Path, target: Path) -> None:
    """Writes one recorded model."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("*.json")):
        write_json(json.loads(file.read_text()), target / file.name)
    for file in sorted(source.glob("*.safetensors")):
        tensors = load_file(file)
        if file.stem in GRADIENTS:
            tensors = {
                name: gradient if name in WHOLE else sampled(gradient)
                for name, gradient in tensors.items()
            }
        if file.stem == "weights":
            tensors = once(tensors)
        save_file(tensors, target / file.name)


def write_json(content: object, target: Path) -> None:
    """Writes JSON without blanks."""
    target.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def reduce_units(source: Path, target: Path) -> None:
    """Copies the recorded functions; they are small."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.suffix == ".safetensors":
            save_file(load_file(file), target / file.name)
        elif file.suffix == ".json":
            write_json(json.loads(file.read_text()), target / file.name)


def main(source: Path, target: Path) -> None:
    """Reduces every model of a set and copies its functions."""
    models = sorted(file.parent for file in source.glob("*/config.json"))
    assert models, f"{source}: no recorded model (a folder with config.json)"
    for model in models:
        reduce_model(model, target / model.name)
    reduce_units(source / "units", target / "units")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
