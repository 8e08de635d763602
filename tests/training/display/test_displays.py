"""What a training shows: rate, time left, table, a bar in a terminal and lines elsewhere."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from od_detr.options import TrainOptions
from od_detr.training.cost.estimate import estimate
from od_detr.training.display.displays import Bar, Display, Lines, display_of
from od_detr.training.display.pace import Pace, duration
from od_detr.training.display.start import memory_of, opening_lines
from od_detr.training.display.table import table_header, table_row
from od_detr.training.plan import assembled, planned

CPU = torch.device("cpu")
ROW = {
    "epoch": 3,
    "val/AP": 0.412,
    "val/AP50": 0.623,
    "val/teacher/AP": 0.431,
    "stability/instability": 4.5,
    "stability/consistency": 0.873,
}


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_counts_batches_and_validations_and_no_pauses() -> None:
    clock = Clock()
    pace = Pace(100, 2, clock)
    pace.trained()
    assert pace.rate is None
    assert pace.seconds_left is None
    for _ in range(9):
        clock.now += 0.5
        pace.trained()
    assert pace.rate == 2
    assert pace.seconds_left == 90 / 2
    pace.paused()
    clock.now += 1000
    pace.validated(7.0)
    pace.trained(10)
    assert pace.rate == 2
    assert pace.seconds_left == 80 / 2 + 7
    clock.now += 10
    pace.trained(10)  # an accumulated step: one second a batch
    assert pace.rate == pytest.approx(10 / 5.5)


def test_durations_are_hours_minutes_and_seconds() -> None:
    assert duration(3723.4) == "1:02:03"


def test_the_table_holds_the_metrics_below_their_titles() -> None:
    header, row = table_header(), table_row(ROW, 0.431)
    assert row.split() == ["3", "41.2", "62.3", "43.1", "4.50", "87.3", "43.1*"]
    assert len(header) < 80
    assert row.index("62.3") + 4 == header.index("AP50") + 4
    assert not table_row(ROW, 0.5).endswith("*")


def test_the_table_shows_what_was_not_measured() -> None:
    cells = table_row({"epoch": 1, "val/AP": -1.0, "val/AP50": -1.0}, -1.0).split()
    assert cells == ["1", *"------"]


def shown(display: Display) -> None:
    """A run of two epochs of two batches."""
    with display:
        for epoch in (1, 2):
            display.begin(epoch)
            for loss in (math.nan, 12.345):
                display.stepped(1, loss)
            display.begin(epoch)
            with display.validating(1):
                display.validated()
            display.row(ROW | {"epoch": epoch}, 0.5)


def test_without_a_terminal_there_are_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("od_detr.training.display.displays.FIRST_SECONDS", 0.0)
    display = display_of(2, 4, Pace(4, 2), CPU)
    assert isinstance(display, Lines)
    shown(display)
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("epoch 1/2")
    assert "1/4" in lines[0]
    assert lines[0].endswith("GB")
    assert [line for line in lines if "AP50" in line] == [table_header()]
    assert [line.split()[0] for line in lines[-2:]] == ["1", "2"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_has_one_bar_for_the_run_below_the_table(width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, legacy_windows=False)
    shown(Bar(2, 4, Pace(4, 2), CPU, console=console))
    text = screen.getvalue()
    last = text[text.rindex("epoch 2/2") :]
    assert text.count("AP50") == 1
    assert text.index("AP50") < text.rindex("epoch 2/2")
    assert "100 %" in last
    assert "loss 12.3" in last
    assert " left" in last
    assert "GB" in last


def test_other_processes_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    display = display_of(2, 4, Pace(4, 2), CPU, shown=False)
    shown(display)
    display.say("a line")
    assert capsys.readouterr().out == ""


def test_the_opening_names_device_data_network_schedule_cost_and_output(
    options: Callable[..., TrainOptions],
) -> None:
    parts = assembled(planned(options(epochs=3, recipe="od")))
    before = {
        name: each.clone()
        for name, each in parts.network.state_dict().items()
        if hasattr(each, "clone")
    }
    random = torch.random.get_rng_state()
    cost = estimate(parts)
    assert cost is not None
    assert cost.seconds
    assert cost.bytes > 1e5
    assert torch.equal(random, torch.random.get_rng_state())
    after = parts.network.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in before.items())
    text = "\n".join(opening_lines(parts, cost))
    for fact in (
        "cpu",
        "float32",
        "12 training",
        "4 validation",
        "resnet18",
        "3 epochs",
        "9 steps",
    ):
        assert fact in text
    assert "0:00" in text
    assert str(parts.plan.files.directory) in text
    assert max(map(len, text.splitlines())) < 200
    assert "does not suffice" not in text
    too_large = replace(cost, bytes=round(1.5 * (memory_of(parts.fabric.device) or 0)))
    assert "does not suffice: give --batch-size 2" in "\n".join(opening_lines(parts, too_large))
