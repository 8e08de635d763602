"""`--batch-size auto` takes what the memory holds, and keeps the images of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.plain_yaml import parse_yaml
from od_detr.ranks import OWN, Ranks
from od_detr.run_files import CONFIG_HEAD
from od_detr.training.cost import batch as module
from od_detr.training.cost.batch import held_in_trial, images_for_each, with_batch_size
from od_detr.training.cost.dry_run import dry_run
from od_detr.training.cost.trial import Trial
from od_detr.training.fit import fit
from od_detr.training.module import Training
from od_detr.training.plan import planned

Options = Callable[..., TrainOptions]
Memory = Callable[[int], None]


@pytest.fixture(autouse=True)
def a_step_of_twelve_scenes_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data of these tests count as large: a step has 16 images."""
    monkeypatch.setattr(module, "images_for_each", lambda images, processes: 16 // processes)


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Lets the device hold so many images at once."""

    def hold(images: int) -> None:
        @contextmanager
        def fitting(trial: Trial) -> Iterator[Callable[[int], bool]]:
            yield lambda wanted: wanted <= images

        monkeypatch.setattr(module, "fitting", fitting)

    return hold


@pytest.mark.parametrize(("holds", "batch"), [(100, 16), (15, 8), (2, 2), (0, 1)])
@pytest.mark.slow
def test_what_does_not_fit_at_once_is_accumulated(
    holds: int, batch: int, options: Options, memory_for: Memory, capsys
) -> None:
    memory_for(holds)
    plan = with_batch_size(planned(options(batch_size=None)))
    assert (plan.options.batch_size, plan.options.accumulate) == (batch, 16 // batch)
    said = capsys.readouterr().out
    assert f"--batch-size is {batch} and --accumulate {16 // batch}" in said
    assert ("16 images for a step, at once" in said) == (holds >= 16)
    if holds < 16:
        assert f"of which its memory holds {min(batch, holds)} at once" in said


def test_devices_share_the_images_and_accumulate_multiplies_them(
    options: Options, memory_for: Memory
) -> None:
    memory_for(4)
    plan = planned(options(batch_size=None, devices=2, accumulate=3))
    chosen = with_batch_size(plan).options
    assert (chosen.batch_size, chosen.accumulate, chosen.devices) == (4, 2 * 3, 2)


def test_the_images_of_a_step_are_the_papers_or_fewer_of_a_small_data_set() -> None:
    each = {images: images_for_each(images, 1) for images in (12, 205, 564, 800, 118287)}
    assert each == {12: 1, 205: 4, 564: 8, 800: 16, 118287: 16}
    assert [images_for_each(118287, devices) for devices in (2, 3, 8, 16, 64)] == [8, 4, 2, 1, 1]


def test_a_small_data_set_is_named_as_the_reason(
    options: Options, memory_for: Memory, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(module, "images_for_each", images_for_each)
    memory_for(100)
    with_batch_size(planned(options(batch_size=None)))
    said = capsys.readouterr().out
    assert "an epoch has only 12 images, so each device gets 1 image for a step, at once" in said


def test_a_number_is_left_alone(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "by_trial", None)
    plan = planned(options(batch_size=3))
    assert with_batch_size(plan) is plan


@pytest.mark.slow
def test_on_a_gpu_real_steps_are_tried_until_one_runs_out_of_memory(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written for a GPU; here an allocator that is full at five images stands for it."""
    tried, step = [], Training.step

    def allocating(self: Training, batches, **more) -> None:
        images, _, *size = batches[0].images.shape
        tried.append((images, tuple(size)))
        if images > 4:
            raise torch.OutOfMemoryError
        step(self, batches, **more)

    monkeypatch.setattr(Training, "step", allocating)
    trial = Trial(planned(options(recipe="od")))
    held = [images for images in (1, 2, 4, 8, 16) if held_in_trial(trial, images)]
    assert held == [1, 2, 4]
    assert trial.parts.state.step == 3 * module.TRIED
    assert {size for _, size in tried} == {(107, 107)}  # squares of the longest side


@pytest.mark.slow
def test_on_a_cpu_the_estimate_decides(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_of", lambda device: 10**9)
    monkeypatch.setattr(module, "held_bytes", lambda network: 10**8)
    monkeypatch.setattr(module, "image_bytes", lambda *_: 10**8)
    monkeypatch.setattr(module, "memory_used", lambda estimate, device: estimate.bytes)
    assert with_batch_size(planned(options(batch_size=None))).options.batch_size == 8
    monkeypatch.setattr(module, "memory_of", lambda device: 10**9 - 10**6)
    assert with_batch_size(planned(options(batch_size=None))).options.batch_size == 4


def test_processes_of_a_launcher_are_refused(options: Options) -> None:
    plan = planned(options(batch_size=None))
    with pytest.raises(InputError, match=r"^--batch-size auto: .* give a number"):
        with_batch_size(replace(plan, place=Ranks(0, 2, launcher="torchrun")))


def test_the_other_processes_take_what_the_first_one_wrote(options: Options) -> None:
    plan = planned(options(batch_size=None))
    plan.files.directory.mkdir()
    plan.files.config.write_text(f"{CONFIG_HEAD}batch_size: 4\naccumulate: 2\n")
    second = replace(plan, place=Ranks(1, 2, 1, launcher=OWN))
    chosen = with_batch_size(second).options
    assert (chosen.batch_size, chosen.accumulate) == (4, 2)


@pytest.mark.slow
def test_the_numbers_are_recorded_and_a_resumed_run_keeps_them(
    options: Options, memory_for: Memory
) -> None:
    memory_for(2)
    run = fit(options(batch_size=None, epochs=1, logger="csv"))
    config = parse_yaml((Path(run.directory) / "config.yaml").read_text())
    assert (config["batch_size"], config["accumulate"]) == (2, 8)
    memory_for(16)
    resumed = with_batch_size(
        planned(options(batch_size=None, epochs=2, accumulate=8, resume=True))
    )
    assert (resumed.options.batch_size, resumed.options.accumulate) == (2, 8)


@pytest.mark.slow
def test_a_dry_run_names_the_batch(options: Options, memory_for: Memory) -> None:
    memory_for(4)
    costs = dry_run(options(batch_size=None))
    assert "steps of 4 images x 4 accumulated" in "\n".join(costs.described())
