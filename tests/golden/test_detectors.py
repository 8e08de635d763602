"""Detectors, losses and gradients against the official implementations on the same inputs."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.golden.reduce import at_sample
from torch import Tensor
from torch.testing import assert_close

from od_detr.architectures import ARCHITECTURES
from od_detr.criteria.matching import MatchCost
from od_detr.nn.attention import GroupLayout, SelfAttention
from od_detr.objectives import Answer, ClassLoss, LossWeights, SetPrediction, joined, total
from od_detr.structures import Batch, QueryGroup, QuerySet
from od_detr.training.recipe import Recipe

OUTPUTS = {"rtol": 1e-5, "atol": 1e-5}
LOSSES = {"rtol": 1e-4, "atol": 1e-6}
CASES = ("case1", "case2", "case3")
DENOISING = ("dn_a", "dn_b", "dn_c")


@pytest.fixture(scope="module")
def answer(recording) -> SimpleNamespace:
    """Our detector's encoded and outputs, with what its layers received on the way."""
    detector = recording.detector()
    seen = SimpleNamespace(detector=detector, encoder=[], layers=[])
    for layer in detector.encoder.layers:
        layer.register_forward_hook(
            lambda _, arguments, output: seen.encoder.append((arguments, output))
        )
    for layer in detector.decoder.layers:
        layer.register_forward_hook(
            lambda _, arguments, output: seen.layers.append((arguments, output))
        )
    with torch.no_grad():
        seen.encoded = detector.encode_features(
            recording.features(), recording.inputs["image_mask"]
        )
        seen.outputs = detector.decode(seen.encoded)
    seen.main = seen.outputs["main"]
    return seen


def batch_of(recording, case: str) -> Batch:
    padding = recording.inputs["image_mask"]
    return Batch(torch.zeros(len(padding), 3, *padding.shape[1:]), padding, recording.targets(case))


def official_recipe(recording, denoising: bool = False) -> Recipe:
    """The baseline's objectives with the recorded weights."""
    hyper, eps = recording.hyper, ARCHITECTURES[recording.model].eps
    weights = LossWeights(
        *(float(hyper[f"{term}_loss_coef"]) for term in ("cls", "bbox", "giou")), eps
    )
    focal = ClassLoss("focal", hyper["focal_alpha"])
    objectives = [SetPrediction(weights=weights, class_loss=focal)]
    if recording.model.startswith("dino"):
        objectives.append(SetPrediction("encoder", "encoder", weights, focal))
    if denoising:
        objectives.append(SetPrediction("denoising", "denoising", weights, focal))
    cost = MatchCost(
        *(float(hyper[f"set_cost_{term}"]) for term in ("class", "bbox", "giou")), eps=eps
    )
    return Recipe(objectives, cost=cost)


def take_step(recipe: Recipe, detector, batch: Batch) -> tuple[Answer, dict[str, Tensor]]:
    """The detector's outputs with their matchings, and the loss terms."""
    step = recipe.step(detector, batch)
    return step.student, joined(objective.losses(step) for objective in recipe.objectives)


def our_name(name: str, layers: int) -> str:
    """`loss_bbox_dn_0` -> `denoising/l1/1`; without a number it is the last layer's."""
    term, group, layer = re.fullmatch(
        r"loss_(ce|bbox|giou)(?:_(dn|interm))?(?:_(\d+))?", name
    ).groups()
    objective = {"dn": "denoising", "interm": "encoder", None: "matching"}[group]
    depth = 1 if group == "interm" else layers if layer is None else int(layer) + 1
    return f"{objective}/{ {'ce': 'class', 'bbox': 'l1', 'giou': 'giou'}[term] }/{depth}"


def check_terms(terms: dict[str, Tensor], record: dict, layers: int) -> None:
    """Every term the official code weighs is ours, and the sum of all is its total."""
    wanted = {our_name(name, layers): value for name, value in record["weighted"].items()}
    assert terms.keys() <= wanted.keys()
    for name, value in wanted.items():
        ours = terms[name].item() if name in terms else 0.0
        assert_close(ours, value, **LOSSES, msg=lambda text, name=name: f"{name}: {text}")
    assert_close(total(terms).item(), record["total"], **LOSSES)


def check_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """To 1e-4 of each tensor's largest entry.

    Gradients that are rounding noise, to that of the largest of all.
    """
    pairs = {name: at_sample(ours[name], recorded) for name, recorded in theirs.items()}
    largest = max(wanted.abs().max().item() for _, wanted in pairs.values())
    for name, (mine, wanted) in pairs.items():
        scale = wanted.abs().max().item()
        tolerance = 1e-4 * scale if scale > 1e-6 * largest else 1e-6 * largest
        assert (mine - wanted).abs().max().item() <= tolerance, name


def gradients(detector, features: list[Tensor]) -> dict[str, Tensor]:
    """Of every parameter, under our names, and of every feature map; zero where nothing flowed."""
    named = dict(detector.named_parameters()) | {
        f"input.feat{i}": feature for i, feature in enumerate(features)
    }
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad
        for name, value in named.items()
    }


def test_every_official_weight_has_a_place(recording) -> None:
    assert (
        recording.ours(recording.tensors("weights")).keys()
        == recording.detector().state_dict().keys()
    )


def test_the_encoder_reads_the_same_pyramid(recording, answer) -> None:
    wanted, (memory, position, references) = recording.outputs, answer.encoder[0][0]
    assert_close(memory.tokens, wanted["src_flatten"], **OUTPUTS)
    assert_close(position, wanted["lvl_pos_embed_flatten"], **OUTPUTS)
    assert_close(references, wanted["enc_reference_points"], **OUTPUTS)
    assert torch.equal(memory.padding, wanted["mask_flatten"])
    assert memory.shapes == tuple(map(tuple, wanted["spatial_shapes"].tolist()))
    assert_close(memory.ratios, wanted["valid_ratios"], **OUTPUTS)


def test_every_encoder_layer_agrees(recording, answer) -> None:
    wanted = recording.outputs
    for depth, (_, tokens) in enumerate(answer.encoder[:-1]):
        assert_close(tokens, wanted[f"enc_layer_out.{depth}"], **OUTPUTS)
    assert_close(answer.encoded.memory.tokens, wanted["memory"], **OUTPUTS)


def test_every_decoder_layer_agrees(recording, answer) -> None:
    wanted = recording.outputs
    assert_close(answer.main.queries[0].content, wanted["dec.layer_in.0"], **OUTPUTS)
    for depth, ((_, position, anchors, *_), content) in enumerate(answer.layers):
        references = wanted[f"dec.attn_reference_points.{depth}"]
        assert_close(position, wanted[f"dec.query_pos.{depth}"], **OUTPUTS)
        assert_close(anchors[..., : references.shape[-1]], references, **OUTPUTS)
        assert not anchors[..., references.shape[-1] :].any()
        assert_close(content, wanted[f"dec.layer_out.{depth}"], **OUTPUTS)
        read = (
            content
            if answer.detector.decoder.norm is None
            else answer.detector.decoder.norm(content)
        )
        assert_close(read, wanted["hs"][depth], **OUTPUTS)


def test_the_references_of_every_layer_agree(recording, answer) -> None:
    for depth in range(len(answer.layers)):
        reference = recording.outputs[f"reference_in.{depth}"]
        assert_close(
            answer.main.queries[depth].anchors[..., : reference.shape[-1]], reference, **OUTPUTS
        )
    assert_close(answer.main.queries[-1].anchors, recording.outputs["reference_final"], **OUTPUTS)


def test_logits_and_boxes_of_every_layer_agree(recording, answer) -> None:
    assert_close(answer.main.predictions.logits, recording.outputs["pred_logits"], **OUTPUTS)
    assert_close(answer.main.predictions.boxes, recording.outputs["pred_boxes"], **OUTPUTS)


def test_the_encoders_own_predictions_agree(dino) -> None:
    wanted, detector = dino.outputs, dino.detector()
    select = detector.queries
    with torch.no_grad():
        encoded = detector.encode_features(dino.features(), dino.inputs["image_mask"])
        proposals = select.proposals(encoded.memory)
        kept = encoded.memory.tokens.masked_fill(~proposals[..., :1].isfinite(), 0.0)
        described = select.norm(select.project(kept))
        bare = (
            select.proposals(encoded.memory)
            .sigmoid()
            .gather(1, encoded.tokens[..., None].expand(-1, -1, 4))
        )
    assert_close(proposals, wanted["enc.output_proposals_unsigmoid"], **OUTPUTS)
    assert_close(described, wanted["enc.output_memory"], **OUTPUTS)
    assert_close(select.heads.classify(described, 0), wanted["enc.class_logits_all"], **OUTPUTS)
    assert_close(
        select.heads.box_deltas(described, 0) + proposals,
        wanted["enc.boxes_all_unsigmoid"],
        **OUTPUTS,
    )
    assert torch.equal(encoded.tokens, wanted["enc.topk_indices"])
    assert_close(
        encoded.proposals.predictions.logits[0].max(-1).values, wanted["enc.topk_scores"], **OUTPUTS
    )
    assert_close(bare, wanted["init_box_proposal"], **OUTPUTS)
    assert_close(encoded.proposals.predictions.logits[0], wanted["interm_logits"], **OUTPUTS)
    assert_close(encoded.proposals.predictions.boxes[0], wanted["interm_boxes"], **OUTPUTS)


def test_invalid_tokens_may_be_selected(dino) -> None:
    """Which of them is arbitrary: they are all alike."""
    edge, detector = dino.tensors("edge_invalid_topk"), dino.detector()
    with torch.no_grad():
        encoded = detector.encode_features(dino.features(), edge["image_mask"])
        output = detector.decode(encoded)["main"]
    invalid = ~detector.queries.proposals(encoded.memory).isfinite().all(-1).gather(
        1, encoded.tokens
    )
    assert invalid.sum(1)[1] == dino.config["edge_invalid_tokens"]["image1_selected_invalid"]
    assert_close(encoded.memory.ratios, edge["valid_ratios"], **OUTPUTS)
    assert_close(
        encoded.proposals.predictions.logits[0].max(-1).values, edge["enc.topk_scores"], **OUTPUTS
    )
    assert_close(encoded.proposals.predictions.logits[0], edge["interm_logits"], **OUTPUTS)
    assert_close(encoded.proposals.predictions.boxes[0], edge["interm_boxes"], **OUTPUTS)
    for depth, queries in enumerate(output.queries[:-1]):
        assert_close(queries.anchors, edge[f"reference_in.{depth}"], **OUTPUTS)
    assert_close(output.queries[-1].anchors, edge["reference_final"], **OUTPUTS)
    assert_close(output.predictions.logits, edge["pred_logits"], **OUTPUTS)
    assert_close(output.predictions.boxes, edge["pred_boxes"], **OUTPUTS)


@pytest.mark.parametrize("case", CASES)
def test_every_loss_and_matching_agrees(recording, case: str) -> None:
    detector, record = recording.detector(), recording.record("losses")[case]
    answer, terms = take_step(official_recipe(recording), detector, batch_of(recording, case))
    check_terms(terms, record, detector.num_layers)
    check_matchings(answer, record["matching"], recording.targets(case))


def check_matchings(answer: Answer, record: dict, targets) -> None:
    """The same cost of every pair and the same choice, layer by layer and image by image."""
    images, starts = len(targets.counts), targets.starts
    for name, recorded in record.items():
        _, (matching, found) = answer["encoder" if name == "interm" else "main"]
        depth = 0 if name == "interm" else int(name.removeprefix("layer"))
        for image, wanted in enumerate(recorded):
            view, count = depth * images + image, targets.counts[image]
            costs = torch.tensor(wanted["cost_matrix_query_by_gt"])
            assert_close(found[view, :count].T, costs, rtol=1e-5, atol=1e-4)
            here = matching.view == view
            queries, chosen = matching.query[here], matching.target[here] - starts[image]
            pairs = set(zip(queries.tolist(), chosen.tolist(), strict=True))
            assert pairs == set(zip(wanted["query"], wanted["gt"], strict=True))


def test_every_gradient_agrees(recording) -> None:
    detector = recording.detector()
    features = [feature.requires_grad_() for feature in detector.backbone.maps]
    total(official_recipe(recording).losses(detector, batch_of(recording, "case1"))).backward()
    theirs = recording.gradients("grads")
    assert theirs.keys() == gradients(detector, features).keys()
    check_gradients(gradients(detector, features), theirs)


def recorded_noise(detector, recorded: dict[str, Tensor]) -> SimpleNamespace:
    """Lets the detector draw the recorded random numbers; keeps what it made of them."""
    made, module = SimpleNamespace(labels=None, boxes=None), detector.denoising
    noised_labels, noised_boxes = module.noised_labels, module.noised_boxes

    def labels_of(labels: Tensor, chance: Tensor, label: Tensor) -> Tensor:
        drawn = torch.zeros_like(label).flatten()
        drawn[recorded["rand_label_chosen_indices"]] = recorded["rand_new_label"].to(drawn) + 0.5
        made.labels = noised_labels(
            labels,
            recorded["rand_label_p"].view_as(chance),
            drawn.view_as(label) / module.num_classes,
        )
        return made.labels

    def boxes_of(boxes: Tensor, signs: Tensor, parts: Tensor) -> Tensor:
        made.boxes = noised_boxes(
            boxes,
            recorded["rand_box_sign01"].view_as(signs),
            recorded["rand_box_part"].view_as(parts),
        )
        return made.boxes

    module.noised_labels, module.noised_boxes = labels_of, boxes_of
    return made


@pytest.fixture(params=DENOISING)
def denoised(dino, request) -> SimpleNamespace:
    """A training step with the recorded noise."""
    recorded, record = dino.tensors(request.param), dino.record(f"{request.param}_losses")
    detector = dino.detector().train()
    detector.denoising.number = record["dn_meta"]["dn_number"]
    made = recorded_noise(detector, recorded)
    features = [feature.requires_grad_() for feature in detector.backbone.maps]
    case = record["targets_case"]
    recipe = official_recipe(dino, denoising=True)
    answer, terms = take_step(recipe, detector, batch_of(dino, case))
    return SimpleNamespace(
        name=request.param,
        tensors=recorded,
        record=record,
        detector=detector,
        made=made,
        answer=answer,
        outputs=answer.outputs,
        features=features,
        terms=terms,
        targets=dino.targets(case),
    )


def test_the_noise_agrees(denoised) -> None:
    tensors, group = denoised.tensors, denoised.outputs["denoising"].group
    assert torch.equal(denoised.made.labels.flatten(), tensors["known_labels_noised"])
    assert_close(denoised.made.boxes.flatten(0, 2), tensors["known_boxes_noised"], **OUTPUTS)
    if denoised.record["dn_meta"]["pad_size"]:  # an empty step still carries one blank block here
        assert group.blocks == denoised.record["dn_meta"]["num_dn_group"]
        assert_close(group.queries.content, tensors["input_query_label"], **OUTPUTS)
        assert_close(
            group.queries.anchors, tensors["input_query_bbox_unsigmoid"].sigmoid(), **OUTPUTS
        )


def test_denoising_predictions_agree(denoised) -> None:
    tensors, main, noised = (
        denoised.tensors,
        denoised.outputs["main"],
        denoised.outputs["denoising"],
    )
    assert_close(main.predictions.logits, tensors["pred_logits"], **OUTPUTS)
    assert_close(main.predictions.boxes, tensors["pred_boxes"], **OUTPUTS)
    assert_close(
        denoised.outputs["encoder"].predictions.logits[0], tensors["interm_logits"], **OUTPUTS
    )
    assert_close(
        denoised.outputs["encoder"].predictions.boxes[0], tensors["interm_boxes"], **OUTPUTS
    )
    size = denoised.record["dn_meta"]["pad_size"]
    if size:
        assert_close(noised.predictions.logits, tensors["dn_pred_logits"], **OUTPUTS)
        assert_close(noised.predictions.boxes, tensors["dn_pred_boxes"], **OUTPUTS)
    for depth in range(denoised.detector.num_layers):
        anchors = torch.cat(
            [noised.queries[depth].anchors[:, :size], main.queries[depth].anchors], 1
        )
        assert_close(anchors, tensors[f"reference_in.{depth}"], **OUTPUTS)


def test_denoising_losses_agree(denoised) -> None:
    check_terms(denoised.terms, denoised.record, denoised.detector.num_layers)
    check_matchings(denoised.answer, denoised.record["matching"], denoised.targets)


def test_denoising_pairs_agree(denoised) -> None:
    """In the recording queries count through all blocks, here within their own."""
    (output, (matching, _)), targets = denoised.answer["denoising"], denoised.targets
    blocks, images = output.group.blocks, len(targets.counts)
    slots = output.group.queries.content.shape[1] // blocks
    for image, wanted in enumerate(denoised.record.get("dn_pairs") or []):
        recorded = list(zip(wanted["dn_query"], wanted["gt"], strict=True))
        for layer in range(denoised.detector.num_layers):
            ours = [
                (view % blocks * slots + query, target - targets.starts[image])
                for view, query, target in zip(*(part.tolist() for part in matching), strict=True)
                if view // blocks == layer * images + image
            ]
            assert sorted(ours) == sorted(recorded)


def test_denoising_gradients_agree(dino, denoised) -> None:
    total(denoised.terms).backward()
    ours = gradients(denoised.detector, denoised.features)
    if denoised.name == "dn_a":
        check_gradients(ours, dino.gradients("dn_a_grads"))
    norms = {
        name: torch.tensor([value]) for name, value in denoised.record["grad_norms_l2"].items()
    }
    features = {name: norms.pop(name) for name in list(norms) if name.startswith("input.")}
    # A name's norm is carried in the shape of its weight, so that names are translated as weights
    # are.
    shapes = dino.tensors("weights")
    placed = dino.ours(
        {name: norm.expand(shapes[name].shape).contiguous() for name, norm in norms.items()}
    )
    wanted = {name: value.flatten()[:1] for name, value in placed.items()} | features
    check_gradients({name: ours[name].norm()[None] for name in wanted}, wanted)


def test_groups_see_what_the_official_mask_shows(denoised) -> None:
    """What a query sees is what its output depends on.

    The recorded mask has the denoising queries first.
    """
    blocked = denoised.tensors["attn_mask"]
    size, dim, heads = denoised.record["dn_meta"]["pad_size"], 4, 1
    main = QuerySet(
        torch.zeros(1, len(blocked) - size, dim), torch.zeros(1, len(blocked) - size, 4)
    )
    groups = [QueryGroup("main", main)]
    if size:
        group = denoised.outputs["denoising"].group
        groups.append(
            replace(group, queries=QuerySet(torch.zeros(1, size, dim), torch.zeros(1, size, 4)))
        )
    attention, layout = SelfAttention(dim, heads, dropout=0.0).eval(), GroupLayout(groups)

    def attended(content: Tensor) -> Tensor:
        return attention(content[None], torch.zeros_like(content)[None], layout)[0].sum(-1)

    sees = (
        torch.autograd.functional.jacobian(attended, torch.randn(len(blocked), dim)).abs().sum(-1)
        > 0
    )
    order = [*range(len(blocked) - size, len(blocked)), *range(len(blocked) - size)]
    assert torch.equal(~sees[order][:, order] if size else ~sees, blocked)
