"""The GPU benchmark in miniature on the CPU, so that nothing in it runs there first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.gpu.__main__ import main, parse
from benchmarks.gpu.runner import Check, record, recorded, run_part, work
from benchmarks.gpu.scale import chosen
from benchmarks.gpu.table import table


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
