"""Every measurement gives the figures it promises. How large they are is not a matter of tests."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import ema, growth, inference, matching, memory, saving, startup, step, turns
from od_detr.cli import main

SMALL = {
    "backbone": "resnet18",
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 20,
    "hidden_dim": 64,
}
AXES = {"image_size": (64, 96), "targets": (1, 3)}
FIGURES = {
    "step": lambda: step.measure(rounds=1, image_size=64, small_batch_size=2, **SMALL),
    "matching": lambda: matching.measure(rounds=1, layers=2, queries=40, targets=(3, 5), classes=4),
    "ema": lambda: ema.measure(rounds=1, **SMALL),
    "inference": lambda: inference.measure(rounds=1, image_size=64, **SMALL),
    "growth": lambda: growth.measure(rounds=1, axes=AXES, **SMALL),
    "memory": lambda: memory.measure(image_sizes=(64, 64), **SMALL),
    "saving": lambda: saving.measure(rounds=1, tensors=3, values=1000),
}
KEYS = {
    "step": [
        "distilled_over_baseline",
        *step.SMALL_DETECTORS,
        "ideal_flops_ratio",
        "throughput_over_transformers",
        "guarded_over_unguarded",
    ],
    "matching": ["speedup_3_targets", "speedup_5_targets", "synchronisations"],
    "ema": ["speedup_over_lightning"],
    "inference": ["speedup_over_transformers", "distilled_over_baseline"],
    "growth": ["image_size_baseline", "image_size_od", "targets_baseline", "targets_od"],
    "memory": ["distilled_over_baseline", "small_images_distilled_over_baseline"],
    "saving": ["save_seconds", "verified_load_seconds"],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", FIGURES)
def test_a_measurement_gives_its_figures_as_finite_ratios(verb: str) -> None:
    figures = FIGURES[verb]()
    assert list(figures) == KEYS[verb]
    for figure in figures.values():
        assert set(figure) == {"ratio", "ours", "peer", "goal", "unit"}
        assert all(
            math.isfinite(figure[key]) and figure[key] > 0
            for key in ("ratio", "ours", "peer", "goal")
        )


def test_a_distilled_step_waits_for_one_copy_only() -> None:
    assert matching.exposed_waits(step.small_detector(), step.make_batch(2, 64, 8)) == 1


def test_growth_is_drawn_with_an_axis_a_plot(tmp_path: Path) -> None:
    seconds = {axis: {"baseline": [1.0, 2.0], "od": [1.5, 2.5]} for axis in AXES}
    assert growth.figures(seconds, AXES)["image_size_od"]["goal"] == pytest.approx(
        2.25
    )  # grows as pixels do
    growth.draw(seconds, AXES, tmp_path / "growth.png")
    with Image.open(tmp_path / "growth.png") as image:
        assert image.width > 3 * image.height


def test_the_command_prints_the_figures_as_json_on_its_last_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(startup.COMMANDS, "peer", ["-c", "pass"])  # importing torch takes seconds
    assert main(["benchmark", "startup", "--rounds", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures) == ["import_over_torch", "help_seconds"]
    assert all(figure["ratio"] > 0 for figure in figures.values())


def test_a_measurement_without_a_round_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "startup", "--rounds", "0"]) == 2
    assert "--rounds must be at least 1 (got 0)" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_take_turns_with_a_step() -> None:
    source = Path(__file__).parents[2]
    with turns.worker(source) as one, turns.worker(source) as other:
        seconds = turns.in_turns({"base": one, "head": other}, "qfl", 2)
    assert [len(taken) for taken in seconds.values()] == [2, 2]
    assert turns.ratio(seconds["head"], seconds["base"]) > 0


@pytest.mark.slow
def test_a_step_that_fails_ends_the_measurement(tmp_path: Path) -> None:
    with (
        turns.worker(tmp_path) as process,  # where there is no such code
        pytest.raises(RuntimeError, match="the step of qfl failed"),
    ):
        turns.step(process, "qfl")
