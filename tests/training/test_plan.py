"""What is refused before a run writes anything, and what a killed run may repeat."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from od_detr.checkpoints import Checkpoint
from od_detr.errors import InputError
from od_detr.files import atomic_write
from od_detr.options import EvalOptions, TrainOptions
from od_detr.ranks import OWN, SRUN, Ranks
from od_detr.run_files import CONFIG_HEAD, RunFiles
from od_detr.training.cost import estimate
from od_detr.training.fit import fit
from od_detr.training.plan import assembled, planned, spare_cores
from od_detr.training.record.output import check_same_save, last_save
from od_detr.training.record.resume import resume_options
from od_detr.training.record.run_config import write_config

Options = Callable[..., TrainOptions]


@pytest.mark.parametrize("name", ["metrics.csv", "config.yaml", "tensorboard", "best"])
def test_a_file_that_no_run_wrote_is_never_overwritten(name: str, options: Options) -> None:
    run = Path(options().output)
    run.mkdir()
    (run / name).write_text("mine")
    with pytest.raises(InputError, match=name):
        planned(options())
    assert (run / name).read_text() == "mine"


def test_the_data_folder_is_no_output(options: Options, scenes: Path) -> None:
    with pytest.raises(InputError, match="--output"):
        planned(options(output=f"{scenes}/images/.."))


@pytest.mark.parametrize(
    ("epoch", "due", "left"),
    [(0, False, 3), (1, False, 3), (2, True, 3), (4, False, 1), (5, True, 1)],
)
def test_validations_left_are_those_that_will_come(
    epoch: int, due: bool, left: int, options: Options
) -> None:
    """After epochs 2, 4 and 5, and one that a stop left out."""
    parts = assembled(planned(options(epochs=5, eval=EvalOptions(every=2))))
    checkpoint = Checkpoint({"run": {"epoch": epoch, "validation_due": due}}, Path("last.ckpt"))
    resumed = replace(parts, plan=replace(parts.plan, checkpoint=checkpoint))
    assert resumed.validations_left == left
    assert not resumed.is_finished


def test_the_cost_is_that_of_the_epochs_left(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = assembled(planned(options(epochs=5)))
    monkeypatch.setattr(estimate, "step_seconds", lambda *_: 1.0)
    checkpoint = Checkpoint({"run": {"epoch": 4, "validation_due": False}}, Path("last.ckpt"))
    resumed = replace(parts, plan=replace(parts.plan, checkpoint=checkpoint))
    whole, left = (estimate.estimate(each).seconds for each in (parts, resumed))
    assert left == pytest.approx(whole / 5)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_was_killed_before_its_first_save_starts_again(
    resume: bool, options: Options
) -> None:
    files = RunFiles(Path(options().output))
    files.directory.mkdir()
    files.config.write_text(CONFIG_HEAD + "epochs: 2\n")
    plan = planned(options(resume=resume))
    assert plan.checkpoint is None
    assert plan.options.epochs == 2


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_was_killed_before_it_wrote_anything_starts_again(
    resume: bool, options: Options
) -> None:
    with planned(options()).locked():
        pass
    plan = planned(options(resume=resume))
    assert plan.checkpoint is None
    assert plan.options.epochs == 2


def test_resume_without_any_run_is_refused(options: Options) -> None:
    with pytest.raises(InputError, match=r"last\.ckpt"):
        planned(options(resume=True))


def test_a_second_process_is_refused(options: Options) -> None:
    plan = planned(options())
    with plan.locked(), pytest.raises(InputError, match="another process"), plan.locked():
        pass


@pytest.mark.slow
def test_the_schedule_counts_the_images_that_an_epoch_has(
    options: Options, sparse_scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """9 of 12 scenes have objects: with 6 without, an epoch has 15 images."""
    chosen = {"data": str(sparse_scenes), "background_fraction": 0.4, "accumulate": 2}
    parts = assembled(planned(options(batch_size=3, **chosen)))
    assert (len(parts.sampler), parts.state.steps_per_epoch) == (4, 2)
    assert (
        "15 images: 9 with objects (each once) and 6 without, drawn from 3"
        in capsys.readouterr().out
    )
    plain = assembled(planned(options(batch_size=3, data=str(sparse_scenes))))
    assert len(plain.sampler) == 4
    assert "sampling" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_finished_run_says_so_and_a_resumed_one_when_its_rate_drops(
    options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = "still drops after epoch 1"
    fit(options(epochs=1))
    fit(options(epochs=1, resume=True))
    said = capsys.readouterr().out
    assert said.count("nothing is left to train after 1 epoch; give more with --epochs") == 1
    assert said.count("cost: ") == 1
    assert "from epoch" not in said
    assert "divided by 10" not in said
    assert kept not in said
    fit(options(epochs=2, resume=True))
    said = capsys.readouterr().out
    assert "from epoch 2, 2 epochs" in said
    assert ", divided by 10 after epoch 1" in said
    assert kept in said
    assert "nothing is left" not in said
    assembled(planned(options(epochs=2, resume=True)))
    assert kept not in capsys.readouterr().out


def test_a_run_that_another_process_began_meanwhile_is_not_overwritten(options: Options) -> None:
    plan = planned(options())
    plan.files.best.mkdir(parents=True)
    with pytest.raises(InputError, match="best"), plan.locked():
        pass


@pytest.mark.parametrize(
    ("place", "cores_per_task", "workers"),
    [
        (Ranks(), None, 15),
        (Ranks(world_size=4, launcher=OWN), 16, 3),
        (Ranks(world_size=4, launcher=SRUN), 16, 15),
        (Ranks(world_size=4, launcher=SRUN), 4, 3),
        (Ranks(world_size=4, launcher=SRUN), None, 3),
    ],
)
def test_workers_share_the_cores_that_a_process_may_use(
    place: Ranks, cores_per_task: int | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks of srun that are bound to 16 cores each have those for themselves."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if cores_per_task is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", str(cores_per_task))
    assert spare_cores(place) == workers


def test_a_step_of_fewer_images_is_refused_with_what_makes_it_as_large(options: Options) -> None:
    """As on a machine with fewer devices."""
    files = RunFiles(Path(options().output))
    files.directory.mkdir()
    begun = options(batch_size=2, devices=4)
    write_config(begun, files.config)
    now = options(batch_size=2, devices=1, resume=True)
    with pytest.raises(InputError, match=r"would have 2 images but had 8 .* --accumulate 4, or"):
        resume_options(now, files.config)
    resume_options(replace(now, accumulate=4), files.config)


def test_a_save_that_was_replaced_since_it_was_read_is_not_gone_on_from(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.last.write_text("first")
    first = last_save(files)
    check_same_save(files, first)
    with atomic_write(files.last, older=files.previous) as partial:
        partial.write_text("second")
    with pytest.raises(InputError, match=r"last\.ckpt: another process .* with --resume"):
        check_same_save(files, first)
