"""Converts checkpoints of other code bases to detectors of this package, and back."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from od_detr.architectures import ARCHITECTURES
from od_detr.detectors import DetectionTransformer, build_detector, load_detector, save_detector
from od_detr.errors import InputError
from od_detr.integrations.weights import detrex, huggingface, official
from od_detr.integrations.weights.architecture import HEADS, check_arguments, resembles, sizes_of
from od_detr.integrations.weights.checkpoints import Checkpoint, read_foreign_checkpoint
from od_detr.run_files import saved_detector

IMAGE_SIZE = 800  # short side all these detectors are evaluated at
# Weights with a row for each class. The denoising embedding is used in training only.
OF_CLASSES = re.compile(r"(decoder|queries)\.heads\.classes\.|denoising\.labels\.")
# Weights that a detector never computes with.
IDLE = re.compile(
    r"(^|\.)num_batches_tracked$|^backbone\.(0\.body\.fc|fc|linear)\."
    r"|^criterion\.|^model\.backbone\.model\.fc\."
)
COMPUTING = re.compile(
    r"(model|transformer|backbone|input_proj|neck|class_embed|bbox_embed|query_\w+|tgt_embed"
    r"|refpoint_embed|patterns)\b"
)
COUNTER = "num_batches_tracked"  # of batch norms, which they never compute with
SHOWN = 5


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        source: the checkpoint or detector that was read.
        origin: the code base that the weights come from, such as "official" or "Hugging Face".
        model: the architecture, or "huggingface" for a folder of that library.
        taken: number of tensors that were used.
        fresh: names of tensors that were newly initialised.
        unused: names in the checkpoint that were not used.
        notes: further remarks for the user.
    """

    source: Path
    origin: str
    model: str
    taken: int
    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.origin} weights, {self.model}, {self.taken} tensors taken"]
        lines += [f"newly initialised: {name}" for name in self.fresh]
        counters = [name for name in self.unused if name.endswith(COUNTER)]
        lines += [f"not used: {name}" for name in self.unused if name not in counters]
        if counters:
            lines.append(f"not used: {len(counters)} counters of batches ({COUNTER})")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Converted:
    """A detector made from a checkpoint.

    Attributes:
        detector: in eval mode on the CPU.
        classes: class names in the order of the logits.
        facts: further entries of its `config.json`, such as `category_ids` and `image_size`.
        report: what the conversion did.
    """

    detector: DetectionTransformer
    classes: list[str]
    facts: dict[str, Any]
    report: Conversion


@dataclass(frozen=True)
class _Translation:
    """A checkpoint under our names, with builder arguments that follow from its origin."""

    origin: str
    model: str
    weights: dict[str, Tensor]
    left_over: list[str]
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()


def convert(
    checkpoint: Path,
    model: str | None,
    output: Path,
    num_classes: int | None = None,
    classes: list[str] | None = None,
) -> Conversion:
    """Converts a checkpoint and saves the detector in `output`, for `load_detector`.

    Args:
        checkpoint: as in `converted`.
        model: as in `converted`.
        output: directory to write.
        num_classes: as in `converted`.
        classes: as in `converted`.

    Raises:
        InputError: as `converted`.
    """
    done = converted(checkpoint, model, num_classes, classes)
    save_detector(done.detector, output, done.classes, **done.facts)
    return done.report


def converted(
    checkpoint: Path,
    model: str | None = None,
    num_classes: int | None = None,
    classes: list[str] | None = None,
) -> Converted:
    """Converts a checkpoint of the official code, of detrex or of Hugging Face transformers.

    If the number of classes changes, weights that belong to classes are newly initialised and all
    others are kept.

    Args:
        checkpoint: a PyTorch or safetensors file, or a Hugging Face directory. No code in it is
            run.
        model: the expected architecture, by its name on the command line; None accepts the one that
            the weights show.
        num_classes: number of classes; by default that of `classes`, else the checkpoint's.
        classes: class names.

    Raises:
        InputError: the checkpoint cannot be read, or is of another architecture.
    """
    if model is not None and model not in ARCHITECTURES:
        nearest = difflib.get_close_matches(model, ARCHITECTURES, 1) or list(ARCHITECTURES)
        raise InputError(f"--model {model}: no such model; did you mean {nearest[0]}?")
    if classes is not None and num_classes not in (None, len(classes)):
        raise InputError(
            f"{len(classes)} class names for {num_classes} classes; give as many names as classes"
        )
    found, idle = _without_idle(read_foreign_checkpoint(checkpoint))
    translation = _translate(found, model)
    unused = (*idle, *_unused(translation, found.source))
    held = _classes_in(translation.weights, found.source)
    wanted = num_classes or (len(classes) if classes else held)
    weights, notes = translation.weights, [*found.notes, *translation.notes]
    if wanted != held:
        weights = {name: tensor for name, tensor in weights.items() if not OF_CLASSES.match(name)}
        notes.append(f"{wanted} classes instead of {held}: class heads are newly initialised")
    detector = _build(translation.model, wanted, translation.settings)
    fresh = _load(detector, weights, found.source, renewable=wanted != held)
    names, category_ids = _class_names(found, wanted, held, classes)
    facts = {
        "category_ids": category_ids,
        "image_size": huggingface.image_size(found.config, found.processor) or IMAGE_SIZE,
        "weights": f"converted from {found.source.name}",
    }
    huggingface.check_processor(found.processor, detector, found.source)
    report = Conversion(
        found.source,
        translation.origin,
        translation.model,
        len(weights),
        tuple(fresh),
        unused,
        tuple(notes),
    )
    return Converted(detector.eval(), names, facts, report)


def convert_to_huggingface(source: Path, output: Path) -> Conversion:
    """Converts a run or a saved detector to a Hugging Face directory with its image processor.

    Raises:
        InputError: `source` holds no detector, or transformers has no such architecture.
    """
    detector, config = load_detector(saved_detector(source))
    model = huggingface.to_huggingface(detector, config["classes"])
    size = config.get("image_size", IMAGE_SIZE)
    model.config.update({"category_ids": config.get("category_ids"), "image_size": size})
    model.save_pretrained(output)
    processor = huggingface.processor_config(detector, size)
    (output / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    ours = detector.state_dict()
    unused = tuple(name for name in ours if name.endswith(COUNTER))
    origin = detector.settings["model"]
    return Conversion(source, origin, "huggingface", len(ours) - len(unused), unused=unused)


def _translate(found: Checkpoint, wanted: str | None) -> _Translation:
    """Recognises the code base and architecture of a checkpoint, and renames its weights."""
    if "encoder.level_embed" in found.weights:
        raise InputError(f"{found.source}: is already a detector of this package; use it as it is")
    if any(name.startswith("bbox_head.") for name in found.weights):
        raise InputError(
            f"{found.source}: is a checkpoint of mmdetection, whose weights are not supported; "
            "docs/weights.md lists official and detrex checkpoints of the same architectures"
        )
    if found.config or any(name.startswith("model.encoder.layers.") for name in found.weights):
        return _from_huggingface(found, wanted)
    if {"transformer.level_embeds", "neck.convs.0.conv.weight"} & found.weights.keys():
        return _from_official("detrex", found, detrex.to_official_names(found.weights), wanted)
    return _from_official("official", found, found.weights, wanted)


def _from_official(
    origin: str, found: Checkpoint, weights: Mapping[str, Tensor], wanted: str | None
) -> _Translation:
    """Renames weights that have official names; those of detrex were renamed to them before."""
    model = resembles(weights)
    if model != (wanted or model) or model not in ARCHITECTURES:
        raise _other(found.source, model, wanted)
    check_arguments(found.arguments, found.source)
    ours, left_over = official.from_official(weights, model)
    settings = sizes_of(ours, found.arguments, found.source)
    if model.startswith("dino"):
        settings["shared_heads"] = "decoder.heads.boxes.1.0.weight" not in ours
        if origin == "detrex":
            settings |= detrex.DINO_SETTINGS
    elif settings["decoder_layers"] > 1 and official.heads_are_one(ours):
        raise InputError(
            f"{found.source}: all layers share one box head, so it was trained without box "
            "refinement, which is not supported; give a checkpoint trained with box refinement"
        )
    notes = _notes(origin, found, model)
    return _Translation(origin, model, ours, left_over, settings, notes)


def _other(source: Path, likeness: str, wanted: str | None) -> InputError:
    """The error for weights of another architecture than the one that was asked for."""
    if wanted is None:
        return InputError(
            f"{source}: looks like {likeness}; give a checkpoint of {', '.join(ARCHITECTURES)}"
        )
    known = likeness in ARCHITECTURES
    fix = f"convert it with --model {likeness}" if known else f"give a checkpoint of {wanted}"
    return InputError(f"{source}: looks like {likeness}, not {wanted}; {fix}")


def _notes(origin: str, found: Checkpoint, model: str) -> tuple[str, ...]:
    """Remarks about what the weights do not say."""
    notes = []
    if "nheads" not in found.arguments:
        notes.append(
            f"the checkpoint does not give its number of attention heads; {HEADS} are assumed"
        )
    if origin == "detrex" and model == "deformable-detr-plus":
        notes.append(
            "detrex does not refine box sides below a thousandth of the image, this detector "
            "does; tiny boxes may differ"
        )
    return tuple(notes)


def _from_huggingface(found: Checkpoint, wanted: str | None) -> _Translation:
    if not found.config:
        raise InputError(
            f"{found.source}: are Hugging Face weights without their config.json; give the "
            "directory"
        )
    settings = huggingface.settings_of(found.config, found.source)
    model = huggingface.MODEL
    if wanted not in (None, model):
        raise _other(found.source, model, wanted)
    ours, left_over = huggingface.from_huggingface(found.weights)
    sizes = sizes_of(ours, settings, found.source) | settings
    return _Translation("Hugging Face", model, ours, left_over, sizes)


def _without_idle(found: Checkpoint) -> tuple[Checkpoint, list[str]]:
    idle = [name for name in found.weights if IDLE.search(name)]
    return replace(
        found, weights={name: found.weights[name] for name in found.weights if name not in idle}
    ), idle


def _unused(translation: _Translation, source: Path) -> tuple[str, ...]:
    """The names that were not used.

    Raises:
        InputError: one of them belongs to a part of a detector, so the architecture is another one.
    """
    foreign = [name for name in translation.left_over if COMPUTING.match(name)]
    if foreign:
        raise InputError(
            f"{source}: {translation.model} has no place for {_listed(foreign)}; it is of another "
            "architecture"
        )
    return tuple(translation.left_over)


def _build(model: str, num_classes: int, settings: Mapping[str, Any]) -> DetectionTransformer:
    """Builds the detector with frozen batch norms, as all these checkpoints have them.

    New weights are initialised from a fixed seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_detector(model, num_classes, backbone_frozen=True, **settings)


def _load(
    detector: DetectionTransformer, weights: Mapping[str, Tensor], source: Path, renewable: bool
) -> list[str]:
    """Loads the weights and returns the names that are newly initialised (parts for classes)."""
    expected = detector.state_dict()
    missing = [name for name in expected if name not in weights]
    fresh = [
        name
        for name in missing
        if OF_CLASSES.match(name) and (renewable or name.startswith("denoising."))
    ]
    if lacking := [name for name in missing if name not in fresh]:
        raise InputError(
            f"{source}: has no counterpart of {_listed(lacking)}; it is damaged or a checkpoint of "
            "another architecture"
        )
    for name, tensor in weights.items():
        if name not in expected or tensor.shape != expected[name].shape:
            wanted = tuple(expected[name].shape) if name in expected else "nothing"
            raise InputError(
                f"{source}: '{name}' is {tuple(tensor.shape)} where its other sizes ask for "
                f"{wanted}; it is damaged or a checkpoint of another architecture"
            )
    detector.load_state_dict({**expected, **weights})
    return fresh


def _classes_in(weights: Mapping[str, Tensor], source: Path) -> int:
    bias = weights.get("decoder.heads.classes.0.bias")
    if bias is None:
        raise InputError(f"{source}: has no class head; give a checkpoint of a whole detector")
    return len(bias)


def _class_names(
    found: Checkpoint, wanted: int, held: int, classes: list[str] | None
) -> tuple[list[str], list[int]]:
    """Class names and category ids of the converted detector.

    The official code has a class for every COCO id up to 90, detrex only for those in use.
    """
    coco = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    used = [index for index, name in enumerate(coco) if name not in ("__background__", "N/A")]
    ids = used if wanted == held == len(used) else list(range(wanted))
    named = huggingface.class_names(found.config) or []
    if classes is not None:
        return list(classes), ids
    if wanted == held == len(named):
        return named, huggingface.category_ids(found.config, held) or ids
    if wanted == held and wanted in (len(coco), len(used)):
        return [coco[index] if index in used else f"unused {index}" for index in ids], ids
    return [f"class {index}" for index in range(wanted)], ids


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
