"""Deformable-DETR of transformers, which we did not write, against ours with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from od_detr.detectors import DetectionTransformer, load_detector, save_detector
from od_detr.errors import InputError
from od_detr.integrations.weights.convert import convert, convert_to_huggingface
from od_detr.integrations.weights.huggingface import to_huggingface

transformers = pytest.importorskip("transformers")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
RESNET = {
    "model_type": "resnet",
    "layer_type": "basic",
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
}
BACKBONES = {
    "timm": {
        "model_type": "timm_backbone",
        "backbone": "resnet18",
        "features_only": True,
        "out_indices": [2, 3, 4],
    },
    "transformers": {
        **RESNET,
        "embedding_size": 64,
        "out_features": ["stage2", "stage3", "stage4"],
    },
}
SHAPES = {
    "one level more": {"num_queries": 9, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2},
    "two levels more": {
        "num_queries": 4,
        "d_model": 64,
        "num_feature_levels": 5,
        "decoder_layers": 3,
    },
}


def model_of(shape: str, backbone: str, **changes: object):
    """A random model of transformers whose layers all differ."""
    arguments = {
        "num_labels": 6,
        "encoder_layers": 2,
        "with_box_refine": True,
        "backbone_config": BACKBONES[backbone],
        "tie_word_embeddings": False,
        **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
        **{f"{part}_n_points": 3 for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 40 for part in ("encoder", "decoder")},
    }
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = transformers.DeformableDetrConfig(**{**arguments, **SHAPES[shape], **changes})
        model = transformers.DeformableDetrForObjectDetection(config).eval()
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.randn_like(tensor) * 0.02)
        if model.model.decoder.bbox_embed is not None:
            model.model.decoder.bbox_embed = model.bbox_embed
    return model


def images() -> dict[str, tuple[Tensor, Tensor]]:
    """One image of its own size; and two in one batch, the second padded below and on the right."""
    generator = torch.Generator().manual_seed(1)
    padding = torch.zeros(2, 96, 128, dtype=torch.bool)
    padding[1, 64:], padding[1, :, 75:] = True, True
    return {
        "one size": (
            torch.randn(1, 3, 90, 70, generator=generator),
            torch.zeros(1, 90, 70, dtype=torch.bool),
        ),
        "several sizes": (torch.randn(2, 3, 96, 128, generator=generator), padding),
    }


@torch.no_grad()
def answers(model, images: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and boxes of every layer of a model of transformers."""
    output = model.model(pixel_values=images, pixel_mask=(~padding).long())
    logits, boxes = [], []
    references = [output.init_reference_points, *output.intermediate_reference_points.unbind(1)]
    for layer, content in enumerate(output.intermediate_hidden_states.unbind(1)):
        logits.append(model.class_embed[layer](content))
        delta, start = model.bbox_embed[layer](content), torch.logit(references[layer], 1e-5)
        boxes.append(
            torch.cat(
                [delta[..., : start.shape[-1]] + start, delta[..., start.shape[-1] :]], -1
            ).sigmoid()
        )
    full = model(pixel_values=images, pixel_mask=(~padding).long())
    assert_close(logits[-1], full.logits)
    assert_close(boxes[-1], full.pred_boxes)
    return torch.stack(logits), torch.stack(boxes)


@torch.no_grad()
def our_answers(detector, images: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    features = detector.backbone(detector.backbone.stem(images))
    predictions = detector.decode(detector.encode_features(features, padding))["main"].predictions
    return predictions.logits, predictions.boxes


@pytest.fixture(
    scope="module",
    params=[(shape, backbone) for shape in SHAPES for backbone in BACKBONES],
    ids="-".join,
)
def pair(request, tmp_path_factory):
    """A model of transformers, and ours converted from what it saved."""
    folder = tmp_path_factory.mktemp("pair")
    model = model_of(*request.param)
    model.save_pretrained(folder / "theirs")
    report = convert(folder / "theirs", "deformable-detr-plus", folder / "ours")
    assert not report.fresh
    assert not report.unused
    return model, load_detector(folder / "ours")[0], folder


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["one size", "several sizes"])
def test_a_converted_model_answers_as_before_at_every_layer(pair, sizes: str) -> None:
    model, detector, _ = pair
    batch = images()[sizes]
    for ours, theirs in zip(our_answers(detector, *batch), answers(model, *batch), strict=True):
        assert_close(ours, theirs, **CLOSE)


@pytest.mark.slow
def test_there_and_back_changes_no_bit(pair) -> None:
    model, detector, folder = pair
    convert_to_huggingface(folder / "ours", folder / "back")
    again = transformers.DeformableDetrForObjectDetection.from_pretrained(folder / "back")
    convert(folder / "back", "deformable-detr-plus", folder / "again")
    weights, returned = detector.state_dict(), load_detector(folder / "again")[0].state_dict()
    assert weights.keys() == returned.keys()
    assert all(torch.equal(weights[name], returned[name]) for name in weights)
    heads = {name: value for name, value in model.state_dict().items() if "_embed" in name}
    assert all(torch.equal(again.state_dict()[name], value) for name, value in heads.items())


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["one size", "several sizes"])
def test_our_detector_answers_the_same_in_transformers(small, tmp_path: Path, sizes: str) -> None:
    detector = small("deformable-detr-plus", decoder_layers=3)
    names = [f"thing {index}" for index in range(5)]
    save_detector(detector, tmp_path / "ours", names)
    convert_to_huggingface(tmp_path / "ours", tmp_path / "theirs")
    model = transformers.DeformableDetrForObjectDetection.from_pretrained(
        tmp_path / "theirs"
    ).eval()
    assert list(model.config.id2label.values()) == names
    batch = images()[sizes]
    for ours, theirs in zip(our_answers(detector, *batch), answers(model, *batch), strict=True):
        assert_close(ours, theirs, **CLOSE)


def test_a_model_that_is_trained_on_keeps_one_copy_of_its_box_heads(small) -> None:
    """Transformers refines with the decoder's copy but learns through the detector's."""
    model = to_huggingface(small("deformable-detr-plus"))
    assert model.model.decoder.bbox_embed is model.bbox_embed
    assert model.class_embed[0].weight is not model.class_embed[1].weight


@pytest.mark.slow
def test_class_names_come_along(pair) -> None:
    _, _, folder = pair
    assert json.loads((folder / "ours" / "config.json").read_text())["classes"] == [
        f"LABEL_{i}" for i in range(6)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"with_box_refine": False}, "with_box_refine False"),
        ({"two_stage": True}, "two_stage True"),
        ({"activation_function": "gelu"}, "activation_function 'gelu'"),
        ({"decoder_n_points": 2}, "decoder_n_points 2"),
        ({"decoder_ffn_dim": 8}, "decoder_ffn_dim 8"),
        ({"model_type": "detr"}, "model_type 'detr'"),
        ({"dropout": None}, "dropout None"),
        ({"dropout": True}, "dropout True"),
        ({"encoder_attention_heads": "eight"}, "encoder_attention_heads 'eight'"),
        ({"encoder_attention_heads": 8.5}, r"encoder_attention_heads 8\.5, .* whole number"),
    ],
)
def test_other_configurations_are_refused(
    pair, tmp_path: Path, changes: dict, complaint: str
) -> None:
    _, _, folder = pair
    config = json.loads((folder / "theirs" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    (tmp_path / "model.safetensors").symlink_to(folder / "theirs" / "model.safetensors")
    with pytest.raises(InputError, match=complaint):
        convert(tmp_path, "deformable-detr-plus", tmp_path / "out")


def test_weights_without_their_configuration_are_refused(pair, tmp_path: Path) -> None:
    _, _, folder = pair
    (tmp_path / "weights.safetensors").symlink_to(folder / "theirs" / "model.safetensors")
    with pytest.raises(InputError, match=r"without their config\.json"):
        convert(tmp_path / "weights.safetensors", "deformable-detr-plus", tmp_path / "out")


@pytest.mark.parametrize("model", ["dab-deformable-detr", "dino-4scale"])
def test_hosts_that_transformers_lacks_are_refused(small, model: str) -> None:
    with pytest.raises(InputError, match="no counterpart in transformers"):
        to_huggingface(small(model))


@pytest.mark.slow
def test_a_round_trip_keeps_category_ids_and_image_size_and_writes_a_processor(
    small: Callable[..., DetectionTransformer], tmp_path: Path
) -> None:
    """From the directory of a run, too."""
    run = tmp_path / "run"
    facts = {"category_ids": [2, 5], "image_size": 96}
    save_detector(small("deformable-detr-plus", 2), run / "best", ["green", "red"], **facts)
    convert_to_huggingface(run, tmp_path / "theirs")
    convert(tmp_path / "theirs", "deformable-detr-plus", tmp_path / "back")
    config = load_detector(tmp_path / "back")[1]
    assert config["classes"] == ["green", "red"]
    assert {name: config[name] for name in facts} == facts
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "theirs")
    assert processor.size["shortest_edge"] == 96
