"""Finds the first module of a step whose values are not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from od_detr.training.nonfinite.guard import all_finite
from od_detr.training.supervised import Supervised


@dataclass(frozen=True)
class Found:
    """Where values are not finite for the first time.

    Attributes:
        module: name of the module, as in `last.ckpt`; "loss" for the loss terms.
        what: which of its values.
    """

    module: str
    what: str

    def __str__(self) -> str:
        return f"{self.module}: {self.what}"


class Watch:
    """Hooks on every module, for the length of a `with`; `first` is what was found.

    The hook of a module runs after those of the modules in it, so that the innermost one is named.

    Args:
        network: detector, recipe and teacher.
    """

    def __init__(self, network: Supervised) -> None:
        self.network = network
        self.first: Found | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Watch:
        """Sets the hooks."""
        for name, module in self.network.named_modules():
            hook = self._after_loss if module is self.network else partial(self._after, name)
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        for name, each in self.network.named_parameters():
            if each.requires_grad:
                hook = partial(self._after_gradient, name)
                self._handles.append(each.register_post_accumulate_grad_hook(hook))
        return self

    def __exit__(self, *_: object) -> None:
        """Removes them."""
        for handle in self._handles:
            handle.remove()

    def _after(
        self, name: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any
    ) -> None:
        if self.first is not None:
            return
        if not all_finite(tensors_in((args, kwargs))):
            self.first = Found(name, "its input is not finite")
        elif not all_finite(tensors_in(output)):
            sound = all_finite([*module.parameters(), *module.buffers()])
            why = "although input and weights are" if sound else "nor are its weights"
            self.first = Found(name, f"its output is not finite, {why}")

    def _after_loss(
        self, _: nn.Module, _args: Any, _kwargs: Any, terms: Mapping[str, Tensor]
    ) -> None:
        guilty = next((name for name, term in terms.items() if not all_finite([term])), None)
        if guilty is not None and self.first is None:
            self.first = Found("loss", f"the term {guilty} is not finite")

    def _after_gradient(self, name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        if self.first is None and not all_finite([parameter.grad]):
            module, _, own = name.rpartition(".")
            self.first = Found(module, f"the gradient of its {own} is not finite")


def unsound_weight(network: nn.Module, when: str) -> Found | None:
    """The first weight or buffer that is not finite."""
    for name, each in [*network.named_parameters(), *network.named_buffers()]:
        if not all_finite([each]):
            module, _, own = name.rpartition(".")
            return Found(module, f"its {own} is not finite {when}")
    return None


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from tensors_in(getattr(value, each.name))
