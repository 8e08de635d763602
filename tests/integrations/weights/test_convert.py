"""Checkpoints of other code bases become our detectors whole, or are refused with one line."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from od_detr.detectors import DetectionTransformer, load_detector, save_detector
from od_detr.errors import InputError
from od_detr.integrations.weights import detrex
from od_detr.integrations.weights.checkpoints import read_foreign_checkpoint
from od_detr.integrations.weights.convert import convert
from od_detr.integrations.weights.official import NAMES, from_official, to_official

MODELS = tuple(NAMES)
OF_CLASSES = re.compile(r"(decoder|queries)\.heads\.classes\.|denoising\.labels\.")
DETREX_DINO = {"shared_heads": False, "temperature": 10000.0, "half_pixel": True}


def official_weights(detector: DetectionTransformer) -> dict[str, Tensor]:
    return to_official(detector.state_dict(), detector.settings["model"])


def unshared(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors asks for: no two names for one storage."""
    return {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def detrex_weights(detector: DetectionTransformer) -> dict[str, Tensor]:
    """The names detrex saves: added levels apart, encoder heads as one more layer, heads twice."""
    theirs, maps = {}, len(detector.settings["strides"])
    for name, tensor in official_weights(detector).items():
        name = re.sub(
            r"^transformer\.enc_out_(class|bbox)_embed\.",
            rf"transformer.decoder.\1_embed.{detector.num_layers}.",
            name,
        )
        name = detrex.NAMES.left(name) or name
        level = re.match(r"neck\.convs\.(\d+)\.", name)
        if level and int(level[1]) >= maps:
            name = name.replace(level[0], f"neck.extra_convs.{int(level[1]) - maps}.")
        theirs[name] = tensor
    last = [
        name
        for name in theirs
        if re.match(rf"transformer\.decoder\.\w+_embed\.{detector.num_layers}\.", name)
    ]
    return theirs | {name.removeprefix("transformer.decoder."): theirs[name] for name in last}


# ---- what is taken -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.slow
def test_official_names_lead_there_and_back(small, model: str) -> None:
    weights = small(model).state_dict()
    again, left_over = from_official(to_official(weights, model), model)
    assert same(weights, again)
    assert not left_over


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_an_official_checkpoint_becomes_the_detector_it_was(
    small, save, tmp_path: Path, model: str
) -> None:
    detector = small(model)
    report = convert(save({"model": official_weights(detector)}), model, tmp_path / "out")
    converted, config = load_detector(tmp_path / "out")
    assert same(detector.state_dict(), converted.state_dict())
    assert converted.settings == {**detector.settings, "top_k": converted.settings["top_k"]}
    assert (report.fresh, report.unused, report.taken) == ((), (), len(detector.state_dict()))
    assert len(config["classes"]) == converted.num_classes == 5


WRAPPINGS = {
    "bare": lambda weights: weights,
    "model": lambda weights: {"model": weights, "epoch": 3, "optimizer": {"state": {}}},
    "average": lambda weights: {"ema_model": weights},
    "nested average": lambda weights: {"ema": {"module": weights}},
    "parallel": lambda weights: {
        "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}
    },
    "half precision": lambda weights: {
        "model": {name: tensor.double() for name, tensor in weights.items()}
    },
    "arguments": lambda weights: {
        "model": weights,
        "args": argparse.Namespace(nheads=8, dropout=0.0, lr=1e-4),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_are_found_however_they_are_wrapped(
    small, save, tmp_path: Path, wrapping: str
) -> None:
    detector = small("dino-4scale")
    convert(save(WRAPPINGS[wrapping](official_weights(detector))), "dino-4scale", tmp_path / "out")
    assert same(detector.state_dict(), load_detector(tmp_path / "out")[0].state_dict())


@pytest.mark.slow
def test_a_safetensors_file_will_do(small, tmp_path: Path) -> None:
    detector = small("dab-deformable-detr")
    save_file(unshared(official_weights(detector)), tmp_path / "w.safetensors")
    convert(tmp_path / "w.safetensors", "dab-deformable-detr", tmp_path / "out")
    assert same(detector.state_dict(), load_detector(tmp_path / "out")[0].state_dict())


@pytest.mark.slow
def test_trained_weights_come_before_their_average_and_the_report_says_so(
    small, save, tmp_path: Path
) -> None:
    detector = small("deformable-detr-plus")
    weights = official_weights(detector)
    content = {
        "ema_model": {name: tensor + 1 for name, tensor in weights.items()},
        "model": weights,
    }
    report = convert(save(content), "deformable-detr-plus", tmp_path / "out")
    assert same(detector.state_dict(), load_detector(tmp_path / "out")[0].state_dict())
    assert "'ema_model' of the checkpoint was not taken" in str(report)


@pytest.mark.slow
def test_the_heads_of_attention_come_from_the_arguments(small, save, tmp_path: Path) -> None:
    """Nothing in the weights tells 8 heads with one point from 4 with two."""
    weights = official_weights(small("deformable-detr-plus", heads=4, points=2))
    arguments = argparse.Namespace(nheads=4, dropout=0.2)
    report = convert(
        save({"model": weights, "args": arguments}), "deformable-detr-plus", tmp_path / "out"
    )
    settings = load_detector(tmp_path / "out")[0].settings
    assert (settings["heads"], settings["points"], settings["dropout"]) == (4, 2, 0.2)
    assert "8 are assumed" not in str(report)
    assert "8 are assumed" in str(convert(save(weights), "deformable-detr-plus", tmp_path / "out"))


@pytest.mark.slow
def test_classes_have_the_names_of_coco_where_their_number_says_so(
    small, save, tmp_path: Path
) -> None:
    weights = official_weights(small("deformable-detr-plus", num_classes=91))
    convert(save(weights), "deformable-detr-plus", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert dict(zip(config["category_ids"], config["classes"], strict=True))[18] == "dog"
    weights = official_weights(small("deformable-detr-plus", num_classes=80))
    convert(save(weights), "deformable-detr-plus", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert dict(zip(config["category_ids"], config["classes"], strict=True))[90] == "toothbrush"


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_another_number_of_classes_keeps_all_but_the_classes(
    small, save, tmp_path: Path, model: str
) -> None:
    detector = small(model)
    names = ["ant", "bee", "cow"]
    report = convert(save(official_weights(detector)), model, tmp_path / "out", classes=names)
    converted, config = load_detector(tmp_path / "out")
    before, after = detector.state_dict(), converted.state_dict()
    assert config["classes"] == names
    assert converted.num_classes == 3
    assert set(report.fresh) == {name for name in after if OF_CLASSES.match(name)}
    assert all(
        torch.equal(before[name], after[name]) for name in before if not OF_CLASSES.match(name)
    )
    assert "3 classes instead of 5" in str(report)
    assert "decoder.heads.classes.0.weight" in str(report)


@pytest.mark.slow
def test_idle_tensors_are_listed_and_left(small, save, tmp_path: Path) -> None:
    idle = {
        "backbone.0.body.fc.weight": torch.ones(2),
        "criterion.empty_weight": torch.ones(1),
        "mask_head.x": torch.ones(1),
    }
    report = convert(
        save(official_weights(small("dino-4scale")) | idle), "dino-4scale", tmp_path / "out"
    )
    assert set(report.unused) == set(idle)
    assert all(name in str(report) for name in idle)


@pytest.mark.slow
def test_rows_of_a_larger_label_book_are_never_looked_up(small, save, tmp_path: Path) -> None:
    detector = small("dino-4scale")
    weights = official_weights(detector)
    weights["label_enc.weight"] = torch.cat([weights["label_enc.weight"], torch.ones(9, 32)])
    convert(save(weights), "dino-4scale", tmp_path / "out")
    assert same(detector.state_dict(), load_detector(tmp_path / "out")[0].state_dict())


# ---- detrex --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_detrex_checkpoint_becomes_the_detector_it_was(
    small, save, tmp_path: Path, model: str
) -> None:
    detector = small(model, **(DETREX_DINO if model.startswith("dino") else {}))
    weights = detrex_weights(detector)
    assert not any(
        name.startswith(("input_proj", "backbone.0", "transformer.enc_out_")) for name in weights
    )
    report = convert(save({"model": weights}), model, tmp_path / "out")
    converted, _ = load_detector(tmp_path / "out")
    assert same(detector.state_dict(), converted.state_dict())
    assert converted.settings == {**detector.settings, "top_k": converted.settings["top_k"]}
    assert report.origin == "detrex"
    assert ("tiny boxes may differ" in str(report)) == (model == "deformable-detr-plus")


def test_detrex_names_are_those_of_its_source() -> None:
    """Read off detrex's modules by hand, not from the table under test."""
    decoder, encoder = "transformer.decoder.layers.3.", "transformer.encoder.layers.2."
    offsets = "sampling_offsets.bias"
    names = {
        f"{encoder}attentions.0.value_proj.bias": f"{encoder}self_attn.value_proj.bias",
        f"{encoder}ffns.0.layers.0.0.weight": f"{encoder}linear1.weight",
        f"{encoder}ffns.0.layers.1.bias": f"{encoder}linear2.bias",
        f"{encoder}norms.1.weight": f"{encoder}norm2.weight",
        f"{decoder}attentions.0.attn.in_proj_weight": f"{decoder}self_attn.in_proj_weight",
        f"{decoder}attentions.0.attn.out_proj.bias": f"{decoder}self_attn.out_proj.bias",
        f"{decoder}attentions.1.{offsets}": f"{decoder}cross_attn.{offsets}",
        f"{decoder}norms.0.weight": f"{decoder}norm2.weight",
        f"{decoder}norms.1.weight": f"{decoder}norm1.weight",
        f"{decoder}norms.2.weight": f"{decoder}norm3.weight",
        "transformer.level_embeds": "transformer.level_embed",
        "query_embedding.weight": "query_embed.weight",
        "neck.convs.1.norm.bias": "input_proj.1.1.bias",
        "backbone.stem.conv1.weight": "backbone.0.body.conv1.weight",
        "backbone.stem.conv1.norm.running_var": "backbone.0.body.bn1.running_var",
        "backbone.res2.0.shortcut.weight": "backbone.0.body.layer1.0.downsample.0.weight",
        "backbone.res5.2.conv3.norm.bias": "backbone.0.body.layer4.2.bn3.bias",
        "backbone.res3.1.shortcut.norm.weight": "backbone.0.body.layer2.1.downsample.1.weight",
    }
    assert detrex.to_official_names(dict.fromkeys(names, torch.ones(1))).keys() == set(
        names.values()
    )
    assert {name: detrex.NAMES.right(name) for name in names} == names


@pytest.mark.slow
def test_a_label_embedding_of_one_row_per_class_gets_its_spare_row(
    small, save, tmp_path: Path
) -> None:
    detector = small("dino-4scale", **DETREX_DINO)
    weights = detrex_weights(detector)
    weights["label_enc.weight"] = weights["label_enc.weight"][:5]
    convert(save(weights), "dino-4scale", tmp_path / "out")
    labels = load_detector(tmp_path / "out")[0].denoising.labels.weight
    assert torch.equal(labels[:5], detector.denoising.labels.weight[:5])
    assert not labels[5].any()


# ---- what is refused -----------------------------------------------------------------------------


def refusal(checkpoint: Path, model: str, **options: object) -> str:
    """The one line a user reads."""
    with pytest.raises(InputError) as caught:
        convert(checkpoint, model, checkpoint.parent / "refused", **options)
    assert not (checkpoint.parent / "refused").exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_of_another_host_names_its_own(small, save, model: str) -> None:
    file = save(official_weights(small(model)))
    for other in set(MODELS) - {model}:
        message = refusal(file, other)
        assert str(file) in message
        assert f"looks like {model}" in message
        assert f"--model {model}" in message


def test_other_architectures_are_told_by_what_they_look_like(save) -> None:
    resnet = torchvision.models.resnet18().state_dict()
    assert "a bare backbone" in refusal(save(resnet), "dino-4scale")
    detr = {
        "transformer.encoder.layers.0.self_attn.in_proj_weight": torch.ones(1),
        "class_embed.weight": torch.ones(1),
    }
    assert "a DETR without deformable attention" in refusal(save(detr), "dino-4scale")
    assert "no detector of this package" in refusal(save({"weight": torch.ones(1)}), "dino-4scale")


def without(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if part not in name}


@pytest.mark.slow
def test_what_is_missing_or_superfluous_is_named(small, save) -> None:
    model = "deformable-detr-plus"
    weights = official_weights(small(model))
    assert "'encoder.layers.0.norm1.weight'" in refusal(
        save(without(weights, "encoder.layers.0.norm1.weight")), model
    )
    assert "decoder.heads.classes.1" in refusal(save(without(weights, "class_embed.1")), model)
    extra = {"transformer.decoder.norm.weight": torch.ones(32)}
    assert "'transformer.decoder.norm.weight'" in refusal(save(weights | extra), model)
    wrong = {"transformer.encoder.layers.0.linear2.bias": torch.ones(3)}
    assert "(3,)" in refusal(save(weights | wrong), model)
    two_stage = {"transformer.enc_output.weight": torch.ones(32, 32)}
    assert "a two-stage Deformable-DETR" in refusal(save(weights | two_stage), model)


def test_copies_of_a_head_that_disagree_are_refused(small, save) -> None:
    weights = official_weights(small("deformable-detr-plus"))
    weights["transformer.decoder.bbox_embed.0.layers.0.bias"] = (
        weights["bbox_embed.0.layers.0.bias"] + 1
    )
    assert "bbox_embed.0.layers.0.bias" in refusal(save(weights), "deformable-detr-plus")


def test_a_detector_without_box_refinement_is_refused(small, save) -> None:
    """Its one box head is repeated, so that only equality tells."""
    weights = without(
        official_weights(small("deformable-detr-plus")), "transformer.decoder.bbox_embed"
    )
    for name in [name for name in weights if re.match(r"(class|bbox)_embed\.0", name)]:
        weights[name.replace("_embed.0", "_embed.1")] = weights[name]
    assert "without box refinement" in refusal(save(weights), "deformable-detr-plus")


def test_arguments_that_change_what_weights_mean_are_refused(small, save) -> None:
    weights = official_weights(small("dino-4scale"))
    arguments = argparse.Namespace(nheads=8, pre_norm=True)
    assert "pre_norm True" in refusal(save({"model": weights, "args": arguments}), "dino-4scale")


@pytest.mark.parametrize("arguments", [["--lr", "1e-4"], None, "lr"])
def test_arguments_of_another_kind_are_not_read(save, arguments: object) -> None:
    file = save({"model": {"weight": torch.ones(1)}, "args": arguments})
    assert read_foreign_checkpoint(file).arguments == {}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(small, tmp_path: Path, suffix: str) -> None:
    file, weights = tmp_path / f"cut.{suffix}", official_weights(small("dino-4scale"))
    torch.save(weights, file) if suffix == "pth" else save_file(unshared(weights), file)
    file.write_bytes(file.read_bytes()[:-1000])
    message = refusal(file, "dino-4scale")
    assert str(file) in message
    assert "damaged" in message


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"model": 1})[:-3]])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    assert str(tmp_path / "file.pth") in refusal(tmp_path / "file.pth", "dino-4scale")


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, [torch.ones(1)], {"model": {"a": torch.ones(1), "b": 3}}]
)
def test_a_file_without_weights_is_refused(save, content: object) -> None:
    assert "checkpoint.pth: " in refusal(save(content), "dino-4scale")


def test_a_missing_file_or_name_is_told(tmp_path: Path, small, save) -> None:
    assert "no such file" in refusal(tmp_path / "none.pth", "dino-4scale")
    assert "did you mean dino-4scale" in refusal(tmp_path / "none.pth", "dino-4scales")
    assert "config.json: no such file" in refusal(tmp_path, "dino-4scale")
    file = save(official_weights(small("dino-4scale")))
    assert "2 class names for 3 classes" in refusal(
        file, "dino-4scale", num_classes=3, classes=["a", "b"]
    )


def test_our_own_detectors_need_no_conversion(small, tmp_path: Path) -> None:
    save_detector(small("dino-4scale"), tmp_path / "ours", ["a"] * 5)
    assert "is already a detector of this package" in refusal(tmp_path / "ours", "dino-4scale")


class Attack:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "beside weights"])
def test_code_in_a_checkpoint_is_never_run(small, tmp_path: Path, form: str) -> None:
    canary, file = tmp_path / "canary", tmp_path / "evil.pth"
    attack = Attack(canary)
    if form == "pickle":
        file.write_bytes(pickle.dumps({"model": attack}))
    else:
        weights = (
            official_weights(small("deformable-detr-plus")) if form == "beside weights" else {}
        )
        torch.save(
            {"model": weights, "hook": attack},
            file,
            _use_new_zipfile_serialization=form != "old torch",
        )
    message = refusal(file, "deformable-detr-plus")
    assert not canary.exists()
    assert "never loaded" in message
    assert "system" in message or form == "pickle"
    os.system(f"touch {canary}")  # the attack would have worked
    assert canary.exists()
