"""What a backbone's name and options may be: registered models and plain sizes, nothing else."""

from __future__ import annotations

import socket

import pytest
from huggingface_hub.errors import HTTPError

from od_detr.errors import InputError
from od_detr.nn import backbone
from od_detr.nn.backbone import Backbone


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18", "local-dir:/tmp", "resnet1"])
def test_a_name_outside_timms_list_is_refused_without_a_look_at_the_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object) -> None:
        raise AssertionError(f"asked the network for {args}")

    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    with pytest.raises(InputError, match=rf"--backbone {name}"):
        Backbone(name)


def test_an_option_that_is_no_size_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"'channel'.*channels"):
        Backbone("resnet18", options={"channel": (8, 16, 24, 32)})


@pytest.mark.parametrize(
    ("error", "options", "advice"),
    [
        (HTTPError("407 Proxy Authentication Required"), {}, "cannot be fetched .*connect"),
        (RuntimeError("size mismatch for layer1"), {}, "cannot be fetched .*connect"),
        (RuntimeError("size mismatch for layer1"), {"base_width": 32}, "--backbone-options"),
    ],
)
def test_pretrained_weights_out_of_reach_and_of_other_sizes_are_told_apart(
    error: Exception, options: dict[str, int], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str, **given: object) -> object:
        if given.get("pretrained"):
            raise error
        return create(name, **given)

    create = backbone._create
    monkeypatch.setattr(backbone, "_create", failing)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=rf"--backbone-weights imagenet: .*resnet50.*{advice}"):
        Backbone("resnet50", weights="imagenet", options=options)


def test_a_backbone_without_pretrained_weights_is_named() -> None:
    """Whatever its sizes, and without a network."""
    for options in ({}, {"channels": (16, 32, 48, 64)}):
        with pytest.raises(InputError, match=r"timm has no weights of resnet200; give .* none"):
            Backbone("resnet200", weights="imagenet", options=options)
