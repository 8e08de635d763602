"""Backbones: any timm model as a feature extractor, frozen as DETR freezes its ResNet."""

from __future__ import annotations

import difflib
import json
import logging
import os
import socket
import urllib.request
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from jaxtyping import Float
from timm.layers import Format, PatchEmbed, freeze_batch_norm_2d
from timm.models._features import FeatureInfo, FeatureListNet
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from od_detr.errors import InputError, first_line
from od_detr.weight_files import read_safetensors

# Every DETR starts from torchvision's ResNet weights. timm's defaults come from another recipe.
TORCHVISION_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
# The arguments of timm models that are plain sizes. Others, such as `checkpoint_path` or
# `pretrained_cfg`, make timm read files, fetch addresses or run code, and are never passed on.
_SIZE_NAMES = """
channels layers depths depth dims embed_dim embed_dims num_heads head_dim mlp_ratio mlp_ratios
window_size img_size patch_size strict_img_size dynamic_img_size dynamic_img_pad output_stride
drop_rate drop_path_rate attn_drop_rate proj_drop_rate pos_drop_rate init_values ls_init_value
cardinality base_width group_size stem_width stem_chs stem_size stem_stride avg_down qkv_bias
channel_multiplier depth_multiplier round_chs_multiplier conv_mlp kernel_sizes use_grn
num_features reduction_ratios sr_ratios growth_rate block_config bottle_ratio width_factor
"""
WORD_OPTIONS = {"stem_type": ("", "deep", "deep_tiered")}
SIZE_OPTIONS = frozenset([*_SIZE_NAMES.split(), *WORD_OPTIONS])
LARGEST_OPTION = 8192
WEIGHT_NAMES = ("imagenet", "none")  # in place of a file
MAX_PARAMETERS = 2_000_000_000
UNBUILDABLE = (RuntimeError, TypeError, AttributeError, AssertionError)  # what timm raises


class Backbone(nn.Module):
    """Multi-scale features of a timm model.

    Args:
        name: a timm model that supports `features_only` and images of any size.
        strides: strides of the feature maps to return, from fine to coarse.
        weights: one of `WEIGHT_NAMES`, "imagenet" (timm's pretrained weights) or "none" (random),
            or a safetensors file.
        frozen: whether to freeze batch norms, the stem and the first stage. None freezes them only
            if weights were loaded, because random statistics must not be frozen.
        options: further arguments of the timm model, such as its sizes.

    Raises:
        InputError: the model or stride is unknown, or weights cannot be downloaded or do not fit.
    """

    def __init__(
        self,
        name: str,
        strides: tuple[int, ...] = (8, 16, 32),
        weights: str = "none",
        frozen: bool | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.features = create_features(name, strides, weights, dict(options or {}))
        self._info = feature_info(self.features)
        self.channels = list(self._info.channels())
        # Swin and similar models keep the channels last, from the stem on.
        self._channels_last = getattr(self.features, "output_fmt", None) == Format.NHWC
        self.frozen = weights != "none" if frozen is None else frozen
        self.shared_modules = 0
        if self.frozen:
            self.features = freeze_batch_norm_2d(self.features)
            _run_in_one_pass(self.features)
            self._freeze_first_stage()
            self.train()
        self.features.to(memory_format=torch.channels_last)
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        self.mean = tuple(config.mean) if config else (0.485, 0.456, 0.406)
        self.std = tuple(config.std) if config else (0.229, 0.224, 0.225)

    def _freeze_first_stage(self) -> None:
        """Freezes all modules up to the last one of stride 4 or less."""
        early = [info["module"] for info in self._info.info if info["reduction"] <= 4]
        last = (early[-1] if early else next(self.features.named_children())[0]).replace(".", "_")
        names = [name for name, _ in self.features.named_parameters()]
        reached = [
            i for i, name in enumerate(names) if name.replace(".", "_").startswith(last + "_")
        ]
        for parameter in list(self.features.parameters())[: reached[-1] + 1 if reached else 0]:
            parameter.requires_grad_(False)
        modules = list(self.features.keys()) if isinstance(self.features, FeatureListNet) else []
        self.shared_modules = modules.index(last) + 1 if last in modules else 0

    def train(self, mode: bool = True) -> Backbone:
        """Sets the mode, but keeps the modules that teacher and student share in eval mode."""
        super().train(mode)
        for module in list(self.features.children())[: self.shared_modules]:
            module.eval()
        return self

    def stem(self, images: Float[Tensor, "B 3 H W"]) -> Tensor:
        """Output of the frozen first modules, or the images if no module is frozen.

        It is the same for teacher and student, so it is computed once for both.
        """
        with torch.no_grad():
            for module in list(self.features.children())[: self.shared_modules]:
                images = module(images)
        return images

    def forward(self, stem: Tensor) -> list[Float[Tensor, "B _c _h _w"]]:
        """Computes feature maps, from fine to coarse, from the output of `stem`.

        Raises:
            InputError: a batch norm in training mode has a single value per channel.
        """
        try:
            maps = self._finish(stem) if self.shared_modules else self.features(stem)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"--batch-size {len(stem)}: batch norms cannot train on a single image this small; "
                "give --batch-size 2 or more, or a larger --image-size"
            ) from error
        return [features.permute(0, 3, 1, 2) for features in maps] if self._channels_last else maps

    def _finish(self, stem: Tensor) -> list[Tensor]:
        """Runs the modules after the shared ones and collects the feature maps."""
        assert isinstance(self.features, FeatureListNet)
        returned, maps = self.features.return_layers, []
        for index, (name, module) in enumerate(self.features.named_children()):
            if index >= self.shared_modules:
                stem = module(stem)
            if index >= self.shared_modules - 1 and name in returned:
                maps.append(stem)
        return maps


class FrozenNorm(FrozenBatchNorm2d):
    """Batch norm with fixed statistics, as a single multiply-add over the feature map."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Scales and shifts each channel of a feature map."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


def _run_in_one_pass(features: nn.Module) -> None:
    for name, module in list(features.named_modules()):
        if type(module) is FrozenBatchNorm2d:
            norm = FrozenNorm(len(module.state_dict()["weight"]), module.eps)
            norm.load_state_dict(module.state_dict())
            features.set_submodule(name, norm)


def feature_info(features: nn.Module) -> FeatureInfo:
    """Channels, strides and module names of a timm feature extractor's maps."""
    info = features.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def create_features(
    name: str, strides: tuple[int, ...], weights: str, options: dict[str, Any]
) -> nn.Module:
    """Builds a timm model that returns feature maps of the given strides, with its weights.

    Raises:
        InputError: as `Backbone`.
    """
    check_backbone(name, options)
    if name in TORCHVISION_RESNETS:
        name += ".tv_in1k"
    _check_sizes(name, options)
    try:
        candidate = _create(name, **options)
    except UNBUILDABLE as error:
        raise InputError(
            f"--backbone {name}: no such timm model with features_only ({first_line(error)}); "
            "list them with timm.list_models()"
        ) from error
    reductions = list(feature_info(candidate).reduction())
    missing = [stride for stride in strides if stride not in reductions]
    if missing:
        raise InputError(
            f"--backbone {name}: has maps of strides {reductions}, none of {missing[0]}; choose "
            "another backbone"
        )
    # The last map of each stride is the deepest one.
    indices = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides]
    if weights == "imagenet":
        return _fetch(name, indices, options)
    features = _create(name, out_indices=indices, **options)
    if weights != "none":
        _load(features, Path(weights), name)
    return features


def check_backbone(name: str, options: Mapping[str, Any]) -> None:
    """Checks that timm only has to build a registered model of the given sizes.

    Other names and options could make timm read files, download, or run code.

    Raises:
        InputError: the name is not in timm's registry, or an option is not a plain size.
    """
    if ":" in name:
        raise InputError(
            f"--backbone {name}: only models of timm's own list can be built without network; "
            "give its timm name, with --backbone-weights FILE for other weights"
        )
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 1)
        raise InputError(
            f"--backbone {name}: no such timm model; "
            + (f"did you mean {near[0]}?" if near else "list them with timm.list_models()")
        )
    for option, value in options.items():
        if option not in SIZE_OPTIONS:
            near = difflib.get_close_matches(option, SIZE_OPTIONS, 1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"known are {', '.join(sorted(SIZE_OPTIONS))}"
            )
            raise InputError(f"--backbone-options: '{option}' is not a size of a backbone; {hint}")
        if option in WORD_OPTIONS:
            if value not in WORD_OPTIONS[option]:
                words = ", ".join(map(repr, WORD_OPTIONS[option]))
                raise InputError(
                    f"--backbone-options: {option} must be one of {words} (got {value!r})"
                )
        elif not _is_plain(value):
            raise InputError(
                f"--backbone-options: {option} {value!r} is not a number from 0 to "
                f"{LARGEST_OPTION}, or a list of such"
            )


def _is_plain(value: Any, depth: int = 2) -> bool:
    if isinstance(value, list | tuple):
        return depth > 0 and len(value) <= 64 and all(_is_plain(each, depth - 1) for each in value)
    return isinstance(value, int | float) and 0 <= value <= LARGEST_OPTION


def _check_sizes(name: str, options: Mapping[str, Any]) -> None:
    """Refuses sizes whose weights no machine can hold, before memory is allocated for them."""
    if not options:
        return  # timm's registered models have sensible sizes
    try:
        counts = _weight_sizes(name, json.dumps(options))
    except (*UNBUILDABLE, ArithmeticError, LookupError, ValueError) as error:
        raise InputError(
            f"--backbone-options: {name} cannot have these sizes ({first_line(error)}); give others"
        ) from error
    if sum(counts) > MAX_PARAMETERS or 0 in counts:
        size = "weights without elements" if 0 in counts else f"{sum(counts):.1e} parameters"
        raise InputError(f"--backbone-options: such a {name} has {size}; give other sizes")


@cache
def _weight_sizes(name: str, options: str) -> list[int]:
    """Number of elements of each weight of a model; `options` as JSON. Allocates no weight."""
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        return [each.numel() for each in _create(name, **json.loads(options)).parameters()]


def _create(name: str, **options: Any) -> nn.Module:
    """Builds a timm feature extractor that accepts images of any size."""
    try:
        features = timm.create_model(
            name, **{"features_only": True, "strict_img_size": False, **options}
        )
    except TypeError:  # most models accept any size and have no such argument
        return timm.create_model(name, features_only=True, **options)
    for module in features.modules():
        if isinstance(module, PatchEmbed) and not module.strict_img_size:
            module.dynamic_img_pad = True  # sides need not be multiples of the patch size
    return features


def _fetch(name: str, indices: list[int], options: dict[str, Any]) -> nn.Module:
    """Builds the pretrained model. Its weights come from the local cache or the hub."""
    from huggingface_hub.errors import HTTPError

    if not _page(name):
        raise InputError(
            f"--backbone-weights imagenet: timm has no weights of {name}; give "
            "--backbone-weights FILE, or none"
        )
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with _OfflineUnlessReachable():
            return _create(name, pretrained=True, out_indices=indices, **options)
    # Of the hub's client, HTTPError is a connection that fails; refusals are OSErrors.
    except (OSError, RuntimeError, ValueError, HTTPError) as error:
        if options and isinstance(error, RuntimeError):  # they are there, but of other sizes
            raise InputError(
                f"--backbone-weights imagenet: the weights of {name} do not fit these "
                "--backbone-options; give --backbone-weights none"
            ) from error
        raise InputError(
            f"--backbone-weights imagenet: the weights of {name} cannot be fetched "
            f"({type(error).__name__}); connect to the hub once, or download them elsewhere from "
            f"{_page(name)} and give --backbone-weights FILE, or none"
        ) from error
    finally:
        logger.setLevel(level)


def _page(name: str) -> str:
    """Where the weights of a timm model can be downloaded; empty where it has none."""
    known = timm.get_pretrained_cfg(name)
    if known is None:
        return ""
    return f"https://huggingface.co/{known.hf_hub_id}" if known.hf_hub_id else f"{known.url or ''}"


class _OfflineUnlessReachable:
    """Uses the local cache alone if the hub does not answer; retries would take a minute."""

    def __enter__(self) -> None:
        from huggingface_hub import constants

        self.constants: Any = constants
        self.before = constants.HF_HUB_OFFLINE
        host = urlparse(os.environ.get("HF_ENDPOINT", constants.ENDPOINT)).hostname or ""
        if not self.before and not urllib.request.getproxies():
            try:
                socket.create_connection((host, 443), timeout=5).close()
            except OSError:
                constants.HF_HUB_OFFLINE = True

    def __exit__(self, *_: object) -> None:
        self.constants.HF_HUB_OFFLINE = self.before


def _load(features: nn.Module, file: Path, name: str) -> None:
    """Loads every weight of the features from `file`; a classifier it also holds is left out."""
    if not file.is_file():
        raise InputError(
            f"--backbone-weights {file}: no such file; give a safetensors file, imagenet or none"
        )
    weights = read_safetensors(file)
    if isinstance(features, FeatureListNet):
        # Its module names are flattened: stages.0 becomes stages_0, while layer1.0 stays.
        tops = {key.replace("_", "."): key for key in features}
        weights = {_flattened(key, tops): value for key, value in weights.items()}
    for key, value in features.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in weights:
            raise InputError(
                f"--backbone-weights {file}: has no '{key}', which {name} needs; give {name}'s own "
                "weights"
            )
        if weights[key].shape != value.shape:
            raise InputError(
                f"--backbone-weights {file}: '{key}' is {tuple(weights[key].shape)} but {name} has "
                f"{tuple(value.shape)}; give {name}'s own weights"
            )
    features.load_state_dict(
        {key: weights[key] for key in features.state_dict() if key in weights}, strict=False
    )


def _flattened(key: str, tops: dict[str, str]) -> str:
    for dotted, flat in tops.items():
        if key.startswith(dotted + "."):
            return flat + key[len(dotted) :]
    return key
