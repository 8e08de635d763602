"""Converts Deformable-DETR between Hugging Face transformers and this package.

One-stage detectors with iterative box refinement on a plain ResNet can be converted, because these
are the ones that exist on both sides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from od_detr.detectors import DetectionTransformer
from od_detr.errors import InputError
from od_detr.integrations.weights.weight_names import Pair, Renaming, mlp_names
from od_detr.nn.backbone import TORCHVISION_RESNETS

if TYPE_CHECKING:
    from transformers import DeformableDetrForObjectDetection

MODEL = "deformable-detr-plus"

_ENCODER, _DECODER = "model.encoder.layers.{}.", "model.decoder.layers.{}."
NAMES = Renaming(
    ("model.backbone.model.", "backbone.features."),
    ("model.input_proj.{}.", "neck.projections.{}."),
    ("model.level_embed", "encoder.level_embed"),
    ("model.query_position_embeddings.weight", "queries.embedding.weight"),
    ("model.reference_points.", "queries.reference_points."),
    (_ENCODER + "self_attn.", "encoder.layers.{}.self_attn."),
    (_ENCODER + "self_attn_layer_norm.", "encoder.layers.{}.norm1."),
    (_ENCODER + "mlp.fc1.", "encoder.layers.{}.linear1."),
    (_ENCODER + "mlp.fc2.", "encoder.layers.{}.linear2."),
    (_ENCODER + "final_layer_norm.", "encoder.layers.{}.norm2."),
    (_DECODER + "self_attn.in_proj_weight", "decoder.layers.{}.self_attn.in_proj_weight"),
    (_DECODER + "self_attn.in_proj_bias", "decoder.layers.{}.self_attn.in_proj_bias"),
    (_DECODER + "self_attn.o_proj.", "decoder.layers.{}.self_attn.out_proj."),
    (_DECODER + "self_attn_layer_norm.", "decoder.layers.{}.norm2."),
    (_DECODER + "encoder_attn.", "decoder.layers.{}.cross_attn."),
    (_DECODER + "encoder_attn_layer_norm.", "decoder.layers.{}.norm1."),
    (_DECODER + "mlp.fc1.", "decoder.layers.{}.linear1."),
    (_DECODER + "mlp.fc2.", "decoder.layers.{}.linear2."),
    (_DECODER + "final_layer_norm.", "decoder.layers.{}.norm3."),
    ("class_embed.{}.", "decoder.heads.classes.{}."),
    *mlp_names("bbox_embed.{}", "decoder.heads.boxes.{}", 3),
)
# Names in other versions of the library, and the second copy of the box heads.
_SPELLINGS = (
    (re.compile(r"^model\.backbone\.conv_encoder\."), "model.backbone."),
    (re.compile(r"(layers\.\d+)\.(fc[12])\."), r"\1.mlp.\2."),
    (re.compile(r"(decoder\.layers\.\d+\.self_attn)\.out_proj\."), r"\1.o_proj."),
    (re.compile(r"^model\.decoder\.(class|bbox)_embed\."), r"\1_embed."),
)


def _resnet(stage: int) -> tuple[Pair, ...]:
    """Name pairs for one ResNet stage: the library's own names, and timm's."""
    left, right = (
        f"model.backbone.model.encoder.stages.{stage}.layers.{{}}.",
        f"model.backbone.model.layer{stage + 1}.{{}}.",
    )
    blocks = [
        pair
        for i in range(3)
        for pair in (
            (f"{left}layer.{i}.convolution.", f"{right}conv{i + 1}."),
            (f"{left}layer.{i}.normalization.", f"{right}bn{i + 1}."),
        )
    ]
    shortcut = (
        (f"{left}shortcut.convolution.", f"{right}downsample.0."),
        (f"{left}shortcut.normalization.", f"{right}downsample.1."),
    )
    return (*blocks, *shortcut)


_RESNET = Renaming(
    ("model.backbone.model.embedder.embedder.convolution.", "model.backbone.model.conv1."),
    ("model.backbone.model.embedder.embedder.normalization.", "model.backbone.model.bn1."),
    *(pair for stage in range(4) for pair in _resnet(stage)),
)


def settings_of(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Builder arguments that stand in a Hugging Face configuration but not in its weights.

    Raises:
        InputError: the configuration belongs to another kind of detector.
    """
    kind = config.get("model_type")
    if kind != "deformable_detr":
        raise InputError(
            f"{source}: its config.json says model_type {kind!r}; only 'deformable_detr' can be "
            "converted"
        )
    number = partial(_number, config, source)
    wanted = {
        "with_box_refine": (config.get("with_box_refine", False), True),
        "two_stage": (config.get("two_stage", False), False),
        "position_embedding_type": (config.get("position_embedding_type", "sine"), "sine"),
        "activation_function": (config.get("activation_function", "relu"), "relu"),
        "dilation": (config.get("dilation", False), False),
        "decoder_attention_heads": (
            number("decoder_attention_heads", 8),
            number("encoder_attention_heads", 8),
        ),
        "decoder_n_points": (
            number("decoder_n_points", 4),
            number("encoder_n_points", 4),
        ),
        "decoder_ffn_dim": (
            number("decoder_ffn_dim", 1024),
            number("encoder_ffn_dim", 1024),
        ),
    }
    for name, (value, ours) in wanted.items():
        if value != ours:
            raise InputError(
                f"{source}: its config.json says {name} {value!r}, but {MODEL} has {ours!r}; it "
                "cannot be converted"
            )
    return {
        "heads": number("encoder_attention_heads", 8),
        "points": number("encoder_n_points", 4),
        "dropout": number("dropout", 0.1),
    }


def _number(config: Mapping[str, Any], source: Path, name: str, default: int | float) -> Any:
    """An entry as a number of the same type as its default."""
    value = config.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    fits = abs(number) < 1e9 and (isinstance(default, float) or number.is_integer())
    if isinstance(value, bool) or not fits:
        kind = "number" if isinstance(default, float) else "whole number"
        raise InputError(
            f"{source}: its config.json says {name} {value!r}, which is not a {kind}; give it one"
        )
    return type(default)(number)


def class_names(config: Mapping[str, Any]) -> list[str] | None:
    """The class names of a configuration in the order of the logits, or None if it has none."""
    names = config.get("id2label") or {}
    return [str(names[index]) for index in sorted(names, key=int)] or None


def category_ids(config: Mapping[str, Any], num_classes: int) -> list[int] | None:
    """The category id of each class, or None if the configuration has no valid list of them."""
    ids = config.get("category_ids")
    if not isinstance(ids, list) or len(ids) != num_classes:
        return None
    sound = all(type(each) is int for each in ids) and len(set(ids)) == len(ids)
    return ids if sound else None


def image_size(config: Mapping[str, Any], processor: Mapping[str, Any]) -> int | None:
    """Short side of the training images in pixels, or None if no valid one is given."""
    shortest = processor.get("size")
    shortest = shortest.get("shortest_edge") if isinstance(shortest, Mapping) else shortest
    sizes = (config.get("image_size"), shortest)
    return next((size for size in sizes if type(size) is int and 16 <= size <= 10_000), None)


def check_processor(
    processor: Mapping[str, Any], detector: DetectionTransformer, source: Path
) -> None:
    """Checks that an image processor normalises images as the detector's backbone expects.

    Raises:
        InputError: mean or standard deviation differ; the message names both values.
    """
    for name, ours in (
        ("image_mean", detector.backbone.mean),
        ("image_std", detector.backbone.std),
    ):
        theirs = processor.get(name)
        if theirs is not None and list(map(float, theirs)) != [float(value) for value in ours]:
            raise InputError(
                f"{source}: its preprocessor_config.json says {name} {theirs}, but "
                f"{detector.settings['backbone']} is used with {list(ours)}; it cannot be converted"
            )


def processor_config(detector: DetectionTransformer, size: int) -> dict[str, Any]:
    """Contents of `preprocessor_config.json`: image size and normalisation as in training.

    Args:
        detector: gives mean and standard deviation.
        size: short side of the images in pixels.
    """
    return {
        "image_processor_type": "DeformableDetrImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size, "longest_edge": size * 5 // 3},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(detector.backbone.mean),
        "image_std": list(detector.backbone.std),
        "do_pad": True,
        "format": "coco_detection",
    }


def from_huggingface(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Renames weights of transformers to ours.

    Weights of every version of the library are accepted. Heads that are tied are stored once and
    are repeated here for every layer.

    Returns:
        The weights under our names, and the names that have no counterpart.
    """
    spelled: dict[str, tuple[str, Tensor]] = {}
    left_over = []
    for name, tensor in weights.items():
        modern = name
        for pattern, replacement in _SPELLINGS:
            modern = pattern.sub(replacement, modern)
        modern = _RESNET.right(modern) or modern
        if modern in spelled and not torch.equal(spelled[modern][1], tensor):
            left_over.append(name)
        else:
            spelled[modern] = (name, tensor)
    ours = {}
    for modern, (name, tensor) in _fused(spelled).items():
        renamed = NAMES.right(modern)
        if renamed is None:
            left_over.append(name)
        else:
            ours[renamed] = tensor
    layers = {name.split(".")[2] for name in ours if name.startswith("decoder.layers.")}
    for name in [name for name in ours if re.match(r"decoder\.heads\.(classes|boxes)\.0\.", name)]:
        for layer in layers:
            ours.setdefault(name.replace(".0.", f".{layer}.", 1), ours[name])
    return ours, left_over


def _fused(named: Mapping[str, tuple[str, Tensor]]) -> dict[str, tuple[str, Tensor]]:
    """Concatenates the query, key and value projections of the decoder's self-attention."""
    fused = dict(named)
    for modern, (name, _) in named.items():
        match = re.fullmatch(
            r"(model\.decoder\.layers\.\d+\.self_attn\.)q_proj\.(weight|bias)", modern
        )
        if match is None:
            continue
        parts = [f"{match[1]}{part}_proj.{match[2]}" for part in "qkv"]
        if all(part in named for part in parts):
            fused[f"{match[1]}in_proj_{match[2]}"] = (
                name,
                torch.cat([fused.pop(part)[1] for part in parts]),
            )
    return fused


def to_huggingface(
    detector: DetectionTransformer, classes: list[str] | None = None
) -> DeformableDetrForObjectDetection:
    """Converts a detector to a transformers model in eval mode.

    Args:
        detector: a Deformable-DETR+ on a torchvision ResNet.
        classes: class names for the model's configuration.

    Raises:
        InputError: transformers has no such architecture, or is not installed.
    """
    try:
        from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection
    except ImportError as error:
        raise InputError(
            "transformers is not installed; pip install 'od-detr[transformers]'"
        ) from error
    settings = detector.settings
    if settings["model"] != MODEL or settings["backbone"] not in TORCHVISION_RESNETS:
        raise InputError(
            f"a {settings['model']} on {settings['backbone']} has no counterpart in transformers; "
            f"only {MODEL} on {TORCHVISION_RESNETS[0]} to {TORCHVISION_RESNETS[-1]} can be "
            "converted"
        )
    if settings["hidden_dim"] % 32:
        raise InputError(
            f"hidden_dim {settings['hidden_dim']} is not a multiple of 32, as transformers' "
            "Deformable-DETR needs"
        )
    # The library would tie the class heads of all layers, but ours differ from layer to layer, so
    # tying is off while loading. Only the two copies of the box heads share their weights.
    model = DeformableDetrForObjectDetection(
        DeformableDetrConfig(**_config(detector, classes), tie_word_embeddings=False)
    )
    model.model.decoder.add_module("bbox_embed", model.bbox_embed)
    weights = _split(detector.state_dict())
    weights |= {
        f"model.decoder.{name}": tensor
        for name, tensor in weights.items()
        if name.startswith("bbox_embed.")
    }
    model.load_state_dict(weights)
    model.config.tie_word_embeddings = True
    return model.eval()


def _config(detector: DetectionTransformer, classes: list[str] | None) -> dict[str, Any]:
    settings = detector.settings
    backbone = {
        "model_type": "timm_backbone",
        "backbone": settings["backbone"],
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": [int(stride).bit_length() - 2 for stride in settings["strides"]],
    }
    names = classes or [f"class {index}" for index in range(detector.num_classes)]
    return {
        "backbone_config": backbone,
        "with_box_refine": True,
        "num_queries": detector.num_queries,
        "d_model": settings["hidden_dim"],
        "num_feature_levels": settings["num_levels"],
        "encoder_layers": settings["encoder_layers"],
        "decoder_layers": settings["decoder_layers"],
        "dropout": settings["dropout"],
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        **{f"{part}_attention_heads": settings["heads"] for part in ("encoder", "decoder")},
        **{f"{part}_n_points": settings["points"] for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": settings["feedforward"] for part in ("encoder", "decoder")},
    }


def _split(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames our weights to the library's, with query, key and value projections separated."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.endswith("num_batches_tracked"):
            continue
        renamed = NAMES.left(name)
        if renamed is None:
            raise ValueError(f"'{name}' has no name in transformers")
        if match := re.fullmatch(r"(.*\.self_attn\.)in_proj_(weight|bias)", renamed):
            theirs |= {
                f"{match[1]}{part}_proj.{match[2]}": rows
                for part, rows in zip("qkv", tensor.chunk(3), strict=True)
            }
        else:
            theirs[renamed] = tensor
    return theirs
