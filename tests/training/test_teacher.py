"""The teacher follows its closed form, never trains, and stands still after Stop Update."""

from __future__ import annotations

import hashlib
import io
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from od_detr.detectors import DetectionTransformer
from od_detr.training.teacher import PAPER_DECAY, Teacher, scaled_decay

MODEL = "deformable-detr-plus"


@pytest.fixture
def student(make_detector) -> DetectionTransformer:
    """With live norms in the backbone and a frozen first stage."""
    detector = make_detector(MODEL, decoder_layers=2)
    for name, parameter in detector.backbone.named_parameters():
        if "layer1" in name or "conv1" in name:
            parameter.requires_grad_(False)
    return detector.train()


def take_step(student: DetectionTransformer) -> None:
    """What an optimiser and a forward pass leave behind: moved weights, moved statistics."""
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
        for buffer in student.buffers():
            buffer += 1


def weights(detector: DetectionTransformer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in detector.state_dict().items()}


def checksum(detector: DetectionTransformer) -> str:
    digest = hashlib.sha256()
    for name, value in detector.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def decay_at(step: int, decay: float, warmup: str, steps: float) -> float:
    if warmup == "exp":
        return decay * (1 - math.exp(-step / steps))
    if warmup == "mean":
        return min(decay, 1 - (1 + steps) / (step + 1 + steps))
    return decay


@pytest.mark.parametrize(
    ("warmup", "steps"), [("none", 0.0), ("exp", 3.0), ("mean", 0.0), ("mean", 2.0)]
)
def test_the_teacher_is_the_closed_form_of_the_average(student, warmup, steps) -> None:
    """The average after n steps: weights of step k count (1 - d_k) times all later decays."""
    decay, count = 0.9, 7
    teacher = Teacher(student, decay, warmup, steps)
    history = [weights(student)]
    for _ in range(count):
        take_step(student)
        teacher.update(student)
        history.append(weights(student))
    decays = [decay_at(step, decay, warmup, steps) for step in range(1, count + 1)]
    shares = [math.prod(decays)]
    shares += [(1 - decays[k]) * math.prod(decays[k + 1 :]) for k in range(count)]
    assert sum(shares) == pytest.approx(1)
    trainable = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    for name, value in teacher.detector.named_parameters():
        if name in trainable:
            wanted = sum(
                share * past[name].double() for share, past in zip(shares, history, strict=True)
            )
            assert_close(value.double(), wanted, rtol=1e-5, atol=1e-6)


def test_the_mean_warm_up_begins_as_the_plain_mean(student) -> None:
    teacher, name = Teacher(student, 0.9999, "mean"), "queries.embedding.weight"
    history = [weights(student)[name]]
    for _ in range(5):
        take_step(student)
        teacher.update(student)
        history.append(weights(student)[name])
    assert_close(
        weights(teacher.detector)[name], torch.stack(history).mean(0), rtol=1e-5, atol=1e-6
    )


def test_frozen_weights_stay_bit_identical_and_statistics_are_copied(student) -> None:
    teacher, before = Teacher(student, 0.7), weights(student)
    frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
    buffers = [name for name, _ in student.named_buffers()]
    assert frozen
    assert buffers
    for _ in range(3):
        take_step(student)
        teacher.update(student)
    for name in frozen:
        assert torch.equal(weights(teacher.detector)[name], before[name])
    for name in buffers:
        assert torch.equal(weights(teacher.detector)[name], weights(student)[name])
        assert not torch.equal(before[name], weights(student)[name])


def test_the_teacher_is_always_in_eval_mode_and_the_student_never_its_part(student) -> None:
    teacher = Teacher(student)
    for _ in range(2):
        teacher.update(student)
        for part in (teacher, teacher.average):
            part.train()
            assert not any(module.training for module in teacher.average.modules())
            assert all(module.training for module in student.modules())
        teacher.stop()
    assert not any(module is student for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_another_student_can_be_followed(student, make_detector) -> None:
    other, teacher = make_detector(MODEL, decoder_layers=2, seed=5), Teacher(student, 0.5)
    teacher.update(student)
    teacher.update(other)
    name = "queries.embedding.weight"
    wanted = (weights(student)[name] + weights(other)[name]) / 2
    assert_close(weights(teacher.detector)[name], wanted)


def test_after_stop_update_the_teacher_stands_still_while_the_evaluated_moves(student) -> None:
    teacher, twin = Teacher(student, 0.8), Teacher(student, 0.8)
    states = set()
    for step in range(6):
        if step == 3:
            assert not teacher.stopped
            assert teacher.evaluated is teacher.detector
            teacher.stop()
            assert teacher.stopped
            assert teacher.evaluated is not teacher.detector
            frozen = checksum(teacher.detector)
        take_step(student)
        teacher.update(student)
        twin.update(student)
        if step > 3:
            teacher.stop()  # once more changes nothing
        states.add(checksum(teacher.evaluated))
    assert checksum(teacher.detector) == frozen
    assert len(states) == 6
    assert checksum(teacher.evaluated) == checksum(
        twin.evaluated
    )  # as if it had never been stopped


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("restored_stopped", [False, True])
def test_a_teachers_state_is_restored_whole(
    student, make_detector, stopped, restored_stopped
) -> None:
    teacher = Teacher(student, 0.8, "mean", 2.0)
    for step in range(4):
        if step == 2 and stopped:
            teacher.stop()
        take_step(student)
        teacher.update(student)
    stored = io.BytesIO()
    torch.save(teacher.state_dict(), stored)
    stored.seek(0)
    restored = Teacher(make_detector(MODEL, decoder_layers=2, seed=9), 0.8, "mean", 2.0)
    if restored_stopped:
        restored.stop()
    restored.load_state_dict(torch.load(stored, weights_only=True))
    assert (restored.stopped, restored.steps) == (stopped, 4)
    for _ in range(2):
        for name in ("detector", "evaluated"):
            assert checksum(getattr(restored, name)) == checksum(getattr(teacher, name))
        take_step(student)
        teacher.update(student)
        restored.update(student)


def test_the_decay_keeps_its_horizons_share_of_training() -> None:
    """The paper's 0.9996 is 2500 of the 89,000 steps of 24 epochs at batch 32.

    A shorter schedule keeps the share.
    """
    share = 2500 / 89_000
    for steps in (700, 5_000, 40_000):
        assert scaled_decay(steps) == pytest.approx(1 - 1 / (share * steps))
    assert PAPER_DECAY == 0.9996
    assert scaled_decay(89_000) == pytest.approx(0.9996)
    assert scaled_decay(10**7) == 0.9996
    for steps in (0, 1, 50):
        assert 0.5 <= scaled_decay(steps) < 1
