"""The GPU benchmark in miniature on the CPU, so that nothing in it runs there first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks.gpu import evidence
from benchmarks.gpu.__main__ import main, parse
from benchmarks.gpu.runner import Check, record, recorded, run_part, work
from benchmarks.gpu.scale import chosen
from benchmarks.gpu.table import table
from benchmarks.gpu.times import spent_by
from torch.autograd import DeviceType


@pytest.mark.slow
def test_every_part_runs_in_miniature(tmp_path: Path) -> None:
    """Laws hold, times are positive, and each recipe's precision is known at some step."""
    main(["--quick", "--device", "cpu", "--minutes", "12", "--output", str(tmp_path)])
    checks = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    failed = {name: facts["failed"] for name, facts in checks.items() if "failed" in facts}
    assert failed == {}
    left_out = {facts.get("skipped") for facts in checks.values()}
    assert left_out == {None, "not in miniature"}
    assert [name for name, facts in checks.items() if not facts.get("holds", True)] == []
    assert checks["attention at the encoder"]["fp32"]["ours_forward"] > 0
    assert all(
        row["step"] > 0 and "val/AP" in row
        for recipe in ("baseline", "od")
        for row in checks["table 2 on scenes"][recipe]
    )
    assert "attention at the encoder" in (tmp_path / "table.txt").read_text()


def test_a_check_that_fails_leaves_the_others(tmp_path: Path) -> None:
    def broken(_):
        raise RuntimeError("no such kernel")

    checks = (Check("bad", broken, 1.0), Check("good", lambda _: {"holds": True}, 1.0))
    work(checks, ["bad", "good"], chosen("cpu", True), tmp_path, until=1e12)
    found = recorded(tmp_path)
    assert "no such kernel" in found["bad"]["failed"]
    assert found["good"]["holds"]
    assert "no such kernel" in table(found)


def test_a_process_that_dies_fails_its_check_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies_at_the_second(_part, names, _arguments, output: Path, _until) -> None:
        for name in names:
            record(output, name, begun=0.0, limit=1.0)
            if name == "second":
                return
            record(output, name, holds=True)

    monkeypatch.setattr("benchmarks.gpu.runner._one_worker", dies_at_the_second)
    run_part("laws", ["first", "second", "third"], [], tmp_path, until=1e12)
    found = recorded(tmp_path)
    assert found["first"]["holds"]
    assert found["third"]["holds"]
    assert "died" in found["second"]["failed"]


def test_a_part_that_no_process_comes_to_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu.runner._one_worker", lambda *_: None)
    run_part("times", ["first"], [], tmp_path, until=1e12)
    assert "failed" in recorded(tmp_path)["first"]


def test_parts_are_run_in_their_order_however_they_are_named() -> None:
    assert parse(["--output", "x", "--parts", "evidence,laws"]).parts == ["laws", "evidence"]


def test_results_of_an_earlier_run_in_the_same_folder_are_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, "earlier", begun=0.0, limit=1.0)
    monkeypatch.setattr("benchmarks.gpu.__main__.run", lambda given: len(recorded(given.output)))
    assert main(["--quick", "--device", "cpu", "--output", str(tmp_path)]) == 0


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the recipes of a run are trained."""
    monkeypatch.setattr(evidence, "scenes_folder", lambda _: tmp_path / "scratch")
    return tmp_path / "scratch"


def test_recipes_of_an_earlier_run_are_removed(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (drawn / "od").mkdir(parents=True)
    monkeypatch.setattr(evidence, "search_path", lambda: "")
    monkeypatch.setattr(sys, "executable", "true")
    evidence.draw(drawn, chosen("cpu", True)).wait()
    assert [*drawn.iterdir()] == []


def test_a_recipe_that_does_not_end_well_is_no_evidence(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = chosen("cpu", True)
    (drawn / "scenes").mkdir(parents=True)
    (drawn / "scenes" / "val.json").touch()
    for recipe in scale.recipes:
        (drawn / recipe).mkdir()
        (drawn / recipe / "metrics.csv").write_text("epoch,step,val/AP\n1,2,0.5\n")
    for status, holds in ((0, True), (1, False)):
        program = f"import sys; sys.exit({status})"
        monkeypatch.setattr(
            evidence, "_start", lambda *_, p=program: subprocess.Popen([sys.executable, "-c", p])
        )
        assert evidence.table2(scale, drawn, until=1e12)["holds"] == holds


def test_a_kernel_counts_once_in_the_time_of_a_device() -> None:
    """The profiler lists it by itself, under its operator, and under annotations."""

    def row(name: str, device: DeviceType, annotation: bool = False) -> SimpleNamespace:
        times = {"self_cpu_time_total": 9000.0, "self_device_time_total": 4000.0}
        facts = {"key": name, "count": 2, "device_type": device, "is_user_annotation": annotation}
        return SimpleNamespace(**facts, **times)

    rows = [
        row("aten::mm", DeviceType.CPU),
        row("gemm", DeviceType.CUDA),
        row("Optimizer.step", DeviceType.CUDA, annotation=True),
    ]
    assert spent_by(rows, on_device=True) == [(4.0, 2, "gemm")]
    assert spent_by(rows[:1], on_device=False) == [(9.0, 2, "aten::mm")]
