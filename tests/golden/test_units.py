"""Single functions against the official ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from od_detr.boxes import cxcywh_to_xyxy, inverse_sigmoid, overlaps, xyxy_to_cxcywh
from od_detr.criteria.losses import box_distances, focal_loss
from od_detr.criteria.matching import MatchCost, match
from od_detr.detectors import select_detections
from od_detr.nn.attention import DeformableAttention
from od_detr.nn.position import encode_anchors, encode_image
from od_detr.structures import GroupOutput, Matched, Predictions, QueryGroup, QuerySet, Targets

EPS = {"deformable_detr": 0.0, "dab": 1e-6, "dino": 1e-6}
MATCHER_CASES = (
    "basic",
    "more_gt_than_queries",
    "one_empty",
    "all_empty",
    "extreme_logits",
    "zero_area_gt",
)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


# ---- boxes ---------------------------------------------------------------------------------------


def test_box_conversions_agree(units: Path) -> None:
    recorded = load_file(units / "box_ops.safetensors")
    for name in ("boxes1", "boxes2"):
        assert torch.equal(cxcywh_to_xyxy(recorded[f"{name}_cxcywh"]), recorded[f"{name}_xyxy"])
    assert_close(
        xyxy_to_cxcywh(recorded["boxes1_xyxy"]), recorded["boxes1_back_to_cxcywh"], **CLOSE
    )


@pytest.mark.parametrize("repository", EPS)
@pytest.mark.parametrize(
    ("kind", "first", "second"), [("random", "boxes1", "boxes2"), ("edge", "edge1", "edge2")]
)
def test_overlaps_agree(units: Path, kind: str, first: str, second: str, repository: str) -> None:
    """Where the oldest code divides 0 by 0, two empty boxes have no overlap."""
    recorded = load_file(units / "box_ops.safetensors")
    pair = recorded[f"{first}_xyxy"][:, None], recorded[f"{second}_xyxy"][None]
    for ours, name in zip(overlaps(*pair, EPS[repository]), ("iou", "giou"), strict=True):
        wanted = recorded[f"{repository}.{kind}.{name}"]
        known = wanted.isfinite()
        assert_close(ours[known], wanted[known], **CLOSE)
        assert ours.isfinite().all()


@pytest.mark.parametrize("repository", EPS)
def test_the_giou_loss_and_its_gradient_agree(units: Path, repository: str) -> None:
    recorded = load_file(units / "box_ops.safetensors")
    wanted = recorded[f"{repository}.pair_giou_loss"]
    boxes = recorded["boxes1_cxcywh"][: len(wanted)].requires_grad_()
    _, loss = box_distances(boxes, recorded["boxes2_cxcywh"][: len(wanted)], EPS[repository])
    loss.sum().backward()
    assert_close(loss.detach(), wanted, **CLOSE)
    gradient = recorded[f"{repository}.pair_giou_loss_sum_grad_boxes1_cxcywh"]
    assert_close(boxes.grad, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("eps", "name"), [(1e-5, "deformable_detr_eps1e-5"), (1e-3, "dab_dino_eps1e-3")]
)
def test_the_inverse_sigmoid_agrees(units: Path, eps: float, name: str) -> None:
    recorded = load_file(units / "small_functions.safetensors")
    assert_close(
        inverse_sigmoid(recorded["inverse_sigmoid.x"], eps),
        recorded[f"inverse_sigmoid.{name}"],
        **CLOSE,
    )


# ---- losses and detections -----------------------------------------------------------------------


def test_the_focal_loss_and_its_gradient_agree(units: Path) -> None:
    """The official function averages over queries and divides by the number of boxes."""
    recorded = load_file(units / "small_functions.safetensors")
    logits = recorded["focal.logits"].requires_grad_()
    value = focal_loss(logits, recorded["focal.targets_onehot"]).mean(1).sum() / 3
    value.backward()
    assert_close(value.detach(), recorded["focal.value_numboxes3"], rtol=1e-5, atol=0)
    assert_close(logits.grad, recorded["focal.grad"], rtol=1e-5, atol=1e-8)


def test_detections_agree(units: Path) -> None:
    recorded = load_file(units / "small_functions.safetensors")
    predictions = Predictions(
        recorded["postprocess.logits"][None], recorded["postprocess.boxes"][None]
    )
    sizes = [(int(height), int(width)) for height, width in recorded["postprocess.target_sizes_hw"]]
    variants = {
        match[1] for name in recorded if (match := re.match(r"postprocess\.(\w+)\.0\.boxes", name))
    }
    assert variants
    for variant in variants:
        detections = select_detections(
            predictions, sizes, top_k=int(re.search(r"\d+$", variant)[0])
        )
        for image in range(len(sizes)):
            prefix = f"postprocess.{variant}.{image}"
            assert_close(detections.scores[image], recorded[f"{prefix}.scores"], **CLOSE)
            assert torch.equal(detections.labels[image], recorded[f"{prefix}.labels"])
            assert_close(
                detections.boxes_xyxy[image], recorded[f"{prefix}.boxes"], rtol=1e-5, atol=1e-3
            )


# ---- matching ------------------------------------------------------------------------------------


def matched(recorded: dict[str, Tensor], case: str, cost: MatchCost) -> tuple[Matched, Targets]:
    logits, boxes = recorded[f"{case}.pred_logits"], recorded[f"{case}.pred_boxes"]
    images = range(len(logits))
    wanted = [recorded[f"{case}.boxes.{image}"] for image in images]
    labels = [recorded[f"{case}.labels.{image}"] for image in images]
    targets = Targets(torch.cat(wanted), torch.cat(labels), tuple(map(len, labels)))
    queries = QuerySet(torch.zeros(*logits.shape[:2], 1), boxes)
    output = GroupOutput(
        QueryGroup("main", queries), (queries,), Predictions(logits[None], boxes[None])
    )
    return match([output], targets, cost)["main"], targets


@pytest.mark.parametrize("repository", EPS)
@pytest.mark.parametrize("case", MATCHER_CASES)
def test_costs_and_matchings_agree(units: Path, case: str, repository: str) -> None:
    recorded = load_file(units / "matcher.safetensors")
    weights = json.loads((units / "units.json").read_text())["matcher"][case]["cost_weights"]
    eps = EPS[repository]
    total = MatchCost(*(float(weights[term]) for term in ("class", "bbox", "giou")), eps=eps)
    parts = {
        "_class": MatchCost(1.0, 0.0, 0.0, eps=eps),
        "_bbox": MatchCost(0.0, 1.0, 0.0, eps=eps),
        "_giou": MatchCost(0.0, 0.0, 1.0, eps=eps),
    }
    for part, cost in {"": total, **parts}.items():
        (_, costs), targets = matched(recorded, case, cost)
        for image, count in enumerate(targets.counts):
            wanted = recorded[f"{case}.{repository}.cost{part}.{image}"]
            known = wanted.isfinite()
            assert_close(costs[image, :count].T[known], wanted[known], rtol=1e-4, atol=1e-4)
    (matching, _), targets = matched(recorded, case, total)
    for image, start in enumerate(targets.starts):
        here = matching.view == image
        queries, chosen = matching.query[here], matching.target[here] - start
        wanted = (
            recorded[f"{case}.{repository}.{side}_index.{image}"].tolist()
            for side in ("query", "gt")
        )
        assert set(zip(queries.tolist(), chosen.tolist(), strict=True)) == set(
            zip(*wanted, strict=True)
        )


# ---- positions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "temperature", "half_pixel"),
    [("deformable_detr.temp10000", 1e4, True), ("dino.temp20", 20.0, False)],
)
@pytest.mark.parametrize("features", [32, 128])
def test_the_encoding_of_the_image_is_exact(
    units: Path, name: str, temperature: float, half_pixel: bool, features: int
) -> None:
    recorded = load_file(units / "position_encoding.safetensors")
    ours = encode_image(recorded["mask"], 2 * features, temperature, half_pixel)
    assert torch.equal(ours.permute(0, 3, 1, 2), recorded[f"{name}.feats{features}"])


@pytest.mark.parametrize(
    ("name", "features"), [("official_feats128", 128), ("rescaled_feats32", 32)]
)
@pytest.mark.parametrize("coordinates", [2, 4])
def test_the_encoding_of_anchors_is_exact(
    units: Path, name: str, features: int, coordinates: int
) -> None:
    recorded = load_file(units / "position_encoding.safetensors")
    ours = encode_anchors(recorded["query_boxes_cxcywh"][..., :coordinates], features)
    assert torch.equal(ours, recorded[f"query_sine.{name}_from{coordinates}"])


# ---- attention -----------------------------------------------------------------------------------


def test_attention_starts_on_the_official_rays(units: Path) -> None:
    recorded = load_file(units / "ms_deform_attn_module.safetensors")
    attention = DeformableAttention(256, heads=8, num_levels=4, points=4)
    attention.reset_parameters()
    wanted = recorded["init.sampling_offsets.bias_d256_h8_l4_p4"]
    assert_close(attention.sampling_offsets.bias.detach(), wanted, rtol=0, atol=1e-6)
    assert not attention.sampling_offsets.weight.any()


@pytest.mark.parametrize("reference", ["ref2", "ref4"])
@pytest.mark.parametrize("masked", ["masked", "unmasked"])
def test_the_attention_module_and_its_gradients_agree(
    units: Path, reference: str, masked: str
) -> None:
    recorded = load_file(units / "ms_deform_attn_module.safetensors")
    sizes = json.loads((units / "units.json").read_text())["ms_deform_attn_module"]
    attention = DeformableAttention(
        sizes["d_model"], sizes["n_heads"], sizes["n_levels"], sizes["n_points"]
    )
    weights = {
        name.removeprefix("weight."): value
        for name, value in recorded.items()
        if name.startswith("weight.")
    }
    attention.load_state_dict(weights)
    shapes = tuple((int(height), int(width)) for height, width in recorded["spatial_shapes"])
    inputs = {
        "query": recorded["query"],
        "reference_points": recorded[f"{reference}.reference_points"],
        "input_flatten": recorded["input_flatten"],
    }
    query, anchors, memory = (value.requires_grad_() for value in inputs.values())
    output = attention(
        query, anchors, memory, recorded["padding_mask"] if masked == "masked" else None, shapes
    )
    output.backward(recorded["grad_output"])
    prefix = f"{reference}.{masked}"
    assert_close(output.detach(), recorded[f"{prefix}.output"], rtol=1e-5, atol=1e-5)
    gradients = {name: value.grad for name, value in inputs.items()}
    gradients |= {f"weight.{name}": value.grad for name, value in attention.named_parameters()}
    compared = 0
    for name, gradient in gradients.items():
        wanted = recorded.get(f"{prefix}.grad_{name}")
        if wanted is not None:
            assert (gradient - wanted).abs().max() <= 1e-4 * wanted.abs().max(), name
            compared += 1
    assert compared == sum(name.startswith(f"{prefix}.grad_") for name in recorded)
    assert compared >= len(inputs)
