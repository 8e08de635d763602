"""Prepares a detector for inference: folds norms into convolutions, multiplies in bfloat16."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx import Node, Tracer
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from od_detr.detectors import DetectionTransformer
from od_detr.errors import InputError
from od_detr.machine.devices import full_memory_explained
from od_detr.nn.backbone import FrozenNorm

FULL = "the device's memory is full; give a smaller --batch-size"
PRECISIONS = ("auto", "32", "bf16")
NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d, FrozenNorm)


def choose_precision(precision: str, device: torch.device) -> str:
    """The precision to use: "32" or "bf16".

    "auto" is bf16 where the processor multiplies bfloat16 itself; emulation would be slower.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"--precision {precision}: no such precision; choose one of {', '.join(PRECISIONS)}"
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capable = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        native = device.type == "cpu" and capable
    return "bf16" if native else "32"


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """The context to run a prepared detector in.

    Boxes, scores and sampling places are float32 in any.

    Raises:
        InputError: the memory does not suffice.
    """
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with full_memory_explained(lambda: FULL), autocast:
        yield


def prepare(detector: DetectionTransformer, precision: str) -> DetectionTransformer:
    """A copy for inference alone, in eval mode. Under "bf16" it must run in `computing`.

    What reads boxes and scores off, and where queries start, stays in float32.
    """
    ready = copy.deepcopy(detector).eval().requires_grad_(False)
    network = getattr(ready.backbone, "features", ready.backbone)
    if isinstance(network, nn.Module):
        fold_norms(network)
    if precision == "bf16":
        parts = [ready.backbone, ready.neck, ready.encoder, *ready.decoder.layers]
        for module in (module for part in parts for module in part.modules()):
            # Autocast would convert them at every call; norms stay, for it adds and normalises in
            # float32.
            for name, weight in module.named_parameters(recurse=False):
                if isinstance(module, (nn.Conv2d, nn.Linear)) or name.startswith("in_proj"):
                    weight.data = weight.data.to(torch.bfloat16)
    return ready


def fold_norms(network: nn.Module) -> None:
    """Multiplies batch norms in eval mode into the convolution before them, where nothing else
    reads its output.

    A network whose program cannot be traced is left as it is.
    """
    try:
        graph = _Tracer().trace(network)
    except Exception:  # tracing runs the network's own code, which may refuse in any way
        return
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        convolution = network.get_submodule(str(before.target))
        norm: Any = network.get_submodule(str(node.target))
        once = calls[str(before.target)] == calls[str(node.target)] == 1
        if once and type(convolution) is nn.Conv2d and type(norm) in NORMS:
            statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            fused = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
            convolution.weight, convolution.bias = fused
            network.set_submodule(str(node.target), nn.Identity())


class _Tracer(Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in NORMS or super().is_leaf_module(m, module_qualified_name)
