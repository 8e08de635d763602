"""`od-detr reproduce`: each run once, stopped runs continue, and tables report the results."""

from __future__ import annotations

import base64
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import pytest
import torch
from PIL import Image

from od_detr.cli import main
from od_detr.cli.reproduce import ReproduceOptions, reproduce
from od_detr.errors import InputError, NonFiniteError, ProcessLostError
from od_detr.experiments.results import mean_curves, paired, reaching
from od_detr.experiments.runs import commit, side_by_side
from od_detr.experiments.tables import TABLES
from od_detr.files import locked
from od_detr.options import TrainOptions
from od_detr.reporting.curves import curves as draw
from od_detr.run_files import RunFiles


def empty_data(folder: Path) -> str:
    """A data set as far as `reproduce` looks at it; trainings are made up."""
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text('{"images": []}')
    return str(folder)


@pytest.fixture
def scenes(tmp_path: Path) -> str:
    return empty_data(tmp_path / "scenes")


@pytest.fixture
def ask(tmp_path: Path, scenes: str) -> ReproduceOptions:
    return ReproduceOptions("table3", data=scenes, output=str(tmp_path / "runs"))


def named(*rows: str, seeds: int = 1) -> list[str]:
    return [f"{row}-seed{seed}" for seed in range(seeds) for row in rows]


TABLE_3 = ("qfl", "conditional-md", "md-cls", "md-cls-conditional")


@pytest.mark.slow
def test_every_row_is_trained_once_seed_after_seed(ask, trainings) -> None:
    reproduce(replace(ask, seeds=2))
    assert trainings.started == named(*TABLE_3, seeds=2)
    assert trainings.resumed == []
    assert [trainings.options[name].seed for name in trainings.started] == [0] * 4 + [1] * 4


@pytest.mark.slow
def test_a_finished_run_is_never_trained_again(ask, trainings) -> None:
    reproduce(ask)
    reproduce(ask)
    reproduce(replace(ask, seeds=2, rows="qfl"))
    assert trainings.started == [*named(*TABLE_3), "qfl-seed1"]


@pytest.mark.slow
def test_tables_share_their_runs(ask, trainings) -> None:
    for table in ("table3", "table4", "table2", "fig6"):
        reproduce(replace(ask, table=table))
    assert len(set(trainings.started)) == len(trainings.started)
    assert trainings.started[4:7] == named("md-wd1", "md", "md-wd-cls")
    assert trainings.started[-1] == "pd-no-stop-seed0"


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_the_others_follow(ask, trainings, capsys) -> None:
    trainings.stop_at = "conditional-md-seed0"
    with pytest.raises(KeyboardInterrupt):
        reproduce(ask)
    assert "run the same command again" in capsys.readouterr().out
    reproduce(ask)
    assert trainings.started == named("qfl", "conditional-md", *TABLE_3[1:])
    assert trainings.resumed == ["conditional-md-seed0"]
    assert json.loads(RunFiles(Path(ask.output) / "conditional-md-seed0").done.read_text())[
        "resumed"
    ]


def test_a_request_to_stop_after_the_last_step_stops_the_table(ask, trainings) -> None:
    trainings.stop_asked = True
    with pytest.raises(KeyboardInterrupt):
        reproduce(ask)
    trainings.stop_asked = False
    reproduce(ask)
    assert trainings.started == [*named(*TABLE_3)]


def test_a_run_killed_in_its_first_epoch_starts_again(ask, trainings) -> None:
    """`best/` is written before `last.ckpt`, without which there is nothing to go on from."""
    reproduce(replace(ask, rows="qfl"))
    run = Path(ask.output) / "qfl-seed0"
    for name in ("done.json", "last.ckpt"):
        (run / name).unlink()
    (run / "best").mkdir()
    reproduce(replace(ask, rows="qfl"))
    assert trainings.started == named("qfl") * 2
    assert trainings.resumed == []
    assert not (run / "best").exists()


def test_a_run_that_another_process_trains_is_left_to_it(ask, trainings) -> None:
    run = Path(ask.output) / "qfl-seed0"
    run.mkdir(parents=True)
    with (
        locked(RunFiles(run).lock, "locked"),
        pytest.raises(InputError, match="qfl-seed0: another process trains this run"),
    ):
        reproduce(replace(ask, rows="qfl"))
    assert trainings.started == []
    reproduce(replace(ask, rows="qfl"))
    assert trainings.started == named("qfl")


def test_a_run_set_aside_is_not_taken_for_one(ask, trainings) -> None:
    reproduce(replace(ask, rows="qfl"))
    (Path(ask.output) / "qfl-seed0").rename(Path(ask.output) / "qfl-seed0.old")
    rows = {row["name"]: row for row in reproduce(replace(ask, rows="md-cls"))["rows"]}
    assert rows["qfl"]["seeds"] == {}


def test_ctrl_c_exits_with_130(ask, trainings) -> None:
    trainings.stop_at = "qfl-seed0"
    assert main(["reproduce", "table3", "--data", str(ask.data), "--output", ask.output]) == 130


@pytest.mark.slow
def test_the_table_holds_mean_and_half_range_beside_the_papers_figures(
    ask, trainings, capsys
) -> None:
    result = reproduce(replace(ask, seeds=3))
    row = next(row for row in result["rows"] if row["name"] == "md-cls")
    assert row["paper"] == {"AP": 46.4, "AP50": 64.1, "AP75": 50.5}
    assert row["mean"]["AP"] == pytest.approx(43.0)  # of 40, 42 and 47, which are those of this row
    assert row["spread"]["AP"] == pytest.approx(3.5)
    assert row["mean"]["instability"] == pytest.approx(1.5 + 1)
    assert row["mean"]["consistency"] == pytest.approx(90)
    assert [run["AP"] for run in row["seeds"].values()] == pytest.approx([40, 42, 47])
    text = (Path(ask.output) / "table3.md").read_text()
    assert (
        "| QFL MD | md-cls | 46.4 / 64.1 / 50.5 | 43.0 ± 3.5 | 63.0 ± 3.5 | 48.0 ± 3.5 | 2.50 ± "
        "1.00 | 90.0 ± 0.0 |" in text
    )
    assert "half the range over seeds 0, 1, 2" in text
    assert text in capsys.readouterr().out
    kept = json.loads((Path(ask.output) / "table3.json").read_text())["rows"]
    assert [one["mean"] for one in kept] == [one["mean"] for one in result["rows"]]


def test_a_single_seed_has_no_spread(ask, trainings) -> None:
    reproduce(ask)
    assert "| 40.0 | 60.0 | 45.0 |" in (Path(ask.output) / "table3.md").read_text()


def test_the_table_keeps_rows_and_seeds_that_were_not_asked_for_again(ask, trainings) -> None:
    reproduce(replace(ask, seeds=2, rows="qfl"))
    rows = {row["name"]: row for row in reproduce(replace(ask, rows="md-cls"))["rows"]}
    assert len(rows["qfl"]["seeds"]) == 2
    assert len(rows["md-cls"]["seeds"]) == 1
    assert rows["conditional-md"]["mean"] == {}
    assert (
        "| Conditional MD | conditional-md | 45.9 / 64.1 / 49.7 | - | - |"
        in (Path(ask.output) / "table3.md").read_text()
    )


def test_table_7_shows_the_teachers(ask, trainings) -> None:
    for row in reproduce(replace(ask, table="table7"))["rows"]:
        assert row["mean"]["AP"] == pytest.approx(100 * trainings.ap(f"{row['name']}-seed0") + 1)
        assert row["mean"]["instability"] == pytest.approx(0.5)


@pytest.mark.slow
def test_a_figure_is_drawn_from_the_mean_of_its_runs(ask, trainings, monkeypatch) -> None:
    drawn = {}
    monkeypatch.setattr(
        "od_detr.experiments.report.draw",
        lambda runs, *rest: (drawn.update(runs), draw(runs, *rest)),
    )
    reproduce(replace(ask, table="fig1", rows="baseline"))
    reproduce(replace(ask, table="fig1", rows="od", seeds=3))
    with Image.open(Path(ask.output) / "fig1.png") as image:
        assert image.format == "PNG"
    means = {
        "baseline (control)": trainings.ap("baseline-seed0"),
        "OD-DETR, 3 seeds": fmean(trainings.ap(f"od-seed{seed}") for seed in range(3)),
    }
    for label, ap in means.items():
        assert [row["val/AP"] for row in drawn[label]] == pytest.approx([ap / 2, ap])
        assert [row["epoch"] for row in drawn[label]] == [1, 2]


class Read(HTMLParser):
    """A page's cells, headings and pictures, and whatever it would have to fetch.

    Every tag must be closed.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.cells, self.titles, self.pictures, self.fetched = [], [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        sources = [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        self.pictures += [value for value in sources if value.startswith("data:image/png;base64,")]
        self.fetched += [value for value in sources if not value.startswith("data:")]

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text) -> None:
        if self.open and self.open[-1] in ("td", "h1"):
            (self.cells if self.open[-1] == "td" else self.titles).append(text)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["table3", "fig1"])
def test_a_page_holds_the_table_and_the_curves_and_needs_no_other_file(
    table, ask, trainings
) -> None:
    reproduce(replace(ask, table=table, seeds=3))
    output = Path(ask.output)
    page = Read((output / f"{table}.html").read_text())
    assert page.titles == [TABLES[table].title]
    assert page.fetched == []
    pictures = [base64.b64decode(picture.partition(",")[2]) for picture in page.pictures]
    assert pictures == ([(output / "fig1.png").read_bytes()] if table == "fig1" else [])
    lines = [
        line for line in (output / f"{table}.md").read_text().splitlines() if line.startswith("| ")
    ]
    assert page.cells == [cell.strip() for line in lines[1:] for cell in line.strip("|").split("|")]


def rows_of(*aps: float) -> list[dict[str, float]]:
    return [
        {"epoch": float(n), "val/AP": ap, "val/teacher/AP": 2 * ap} for n, ap in enumerate(aps, 1)
    ]


@pytest.mark.parametrize(
    ("curve", "share"),
    [
        (rows_of(0.1, 0.2, 0.3, 0.4), 1.0),  # the control itself
        (rows_of(0.2, 0.6, 0.7, 0.8), 1.5 / 4),  # half way from 0.2 to 0.6
        (rows_of(0.8, 0.9, 0.9, 0.9), 0.5 / 4),  # from nothing at the start
        (rows_of(0.1, 0.5, 0.3, 0.5), (1 + 0.75) / 4),  # the first time counts
        ([{"epoch": 1.0}, *rows_of(0.0, 0.8)[1:]], 1.0 / 2),  # not validated after the first
        (rows_of(0.1, 0.2, 0.3, 0.39), None),
        (rows_of(0.2, 0.6), 1.5 / 2),  # at equal time: of its own epochs, which take as long
    ],
)
def test_when_a_curve_has_its_controls_final_ap(curve, share) -> None:
    control = rows_of(0.1, 0.2, 0.3, 0.4)
    assert (
        reaching(curve, control)
        == reaching(curve, control, "val/teacher/AP")
        == pytest.approx(share)
    )


def test_several_runs_are_one_curve_with_its_range_where_all_recorded_it(tmp_path) -> None:
    texts = (
        "epoch,val/AP,train/loss\n1,0.1,\n2,0.5,3\n",
        "epoch,val/AP,train/loss\n1,0.3,4\n2,0.6,5\n3,0.7,1\n",
    )
    files = [tmp_path / "0.csv", tmp_path / "1.csv"]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    first, second = mean_curves(files)
    assert first == pytest.approx(
        {"epoch": 1, "val/AP": 0.2, "val/AP/least": 0.1, "val/AP/most": 0.3}
    )
    assert [second[f"train/loss{end}"] for end in ("", "/least", "/most")] == [4, 3, 5]
    assert mean_curves(files[:1])[1] == {"epoch": 2, "val/AP": 0.5, "train/loss": 3}


@pytest.mark.slow
def test_rows_are_set_against_the_plain_host_of_the_same_seeds(ask, trainings) -> None:
    rows = {
        row["name"]: row
        for row in reproduce(replace(ask, table="table2", rows="baseline,qfl", seeds=2))["rows"]
    }
    assert rows["qfl"]["control"] == "baseline"
    assert (
        rows["baseline"]["control"]
        is rows["baseline-50"]["control"]
        is rows["od"]["control"]
        is None
    )
    ours, plain = (rows[name]["mean"]["AP"] for name in ("qfl", "baseline"))
    # Made-up curves grow evenly, over two epochs, to what is reported.
    assert rows["qfl"]["reaches_control"] == (
        pytest.approx(plain / ours) if ours >= plain else None
    )
    rows = {
        row["name"]: row
        for row in reproduce(replace(ask, table="table2", rows="qfl", seeds=3))["rows"]
    }
    assert rows["qfl"]["control"] is None  # it lacks a seed


def test_a_lead_is_that_of_a_paired_t_test() -> None:
    """For differences of 1, 2 and 3: two degrees of freedom, whose tails have a closed form."""
    ours = {seed: {"AP": 30.0 + seed + 1 + seed} for seed in range(3)}
    theirs = {seed: {"AP": 30.0 + seed} for seed in range(4)}
    found = paired(ours, theirs)
    t = 2 * math.sqrt(3)
    assert found == {
        "difference": pytest.approx(2.0),
        "p": pytest.approx(1 - t / math.sqrt(2 + t * t)),
    }
    assert paired(ours, {1: {"AP": 30.0}}) == {"difference": pytest.approx(3.0), "p": None}
    assert paired(ours, {9: {"AP": 30.0}}) is None


def test_rows_that_are_fine_tuned_start_from_one_detector_with_the_defaults_of_train(
    ask, trainings
) -> None:
    ask = replace(ask, scale="fine-tuning", init="runs/first", rows="qfl,md-cls")
    reproduce(ask)
    # Training resolves what `init` decides.
    config = RunFiles(Path(ask.output) / "qfl-seed0").config
    config.write_text(config.read_text().replace("backbone: resnet50", "backbone: resnet18"))
    report = reproduce(replace(ask, init="elsewhere/first/best"))
    assert trainings.started == named("qfl", "md-cls")
    for run in trainings.options.values():
        defaults = TrainOptions(run.data, init="runs/first", epochs=100, output=run.output)
        assert (run.init, run.total_epochs, run.opt.lr) == ("runs/first", 100, None)
        assert (run.device_batch, run.image_size, run.drop_epoch) == (
            defaults.device_batch,
            None,
            defaults.drop_epoch,
        )
    assert "fine-tuned from first, the image size it was trained at" in report["setting"]
    for other in ("runs/second", "runs/second/best"):
        with pytest.raises(InputError, match="--init first instead of second"):
            reproduce(replace(ask, init=other))


@pytest.mark.parametrize(("scale", "size"), [("tiny", "128 px"), ("paper", "800 px")])
def test_a_report_gives_the_size_of_the_images(scale, size, ask, trainings) -> None:
    report = reproduce(replace(ask, scale=scale, rows="qfl"))
    assert f", {size}, " in report["setting"]


def test_a_report_names_the_data_of_the_current_folder(ask, trainings, monkeypatch) -> None:
    monkeypatch.chdir(ask.data)
    assert "data scenes, " in reproduce(replace(ask, data=".", rows="qfl"))["setting"]


def test_the_control_may_stand_in_another_table(ask, trainings) -> None:
    reproduce(replace(ask, table="table2", rows="baseline"))
    rows = {row["name"]: row for row in reproduce(replace(ask, rows="md-cls"))["rows"]}
    assert rows["md-cls"]["control"] == "baseline"
    assert rows["qfl"]["control"] is None


def test_seeds_can_be_shared_among_jobs(ask, trainings) -> None:
    reproduce(replace(ask, rows="qfl", first_seed=1))
    reproduce(replace(ask, rows="qfl", seeds=3))
    assert trainings.started == ["qfl-seed1", "qfl-seed0", "qfl-seed2"]


def test_table_7_sets_teachers_against_teachers(ask, trainings) -> None:
    rows = {row["name"]: row for row in reproduce(replace(ask, table="table7"))["rows"]}
    ours, plain = (rows[name]["mean"]["AP"] for name in ("dino4-od", "dino4-baseline"))
    assert rows["dino4-od"]["reaches_control"] == (
        pytest.approx(plain / ours) if ours >= plain else None
    )


def test_a_finished_run_tells_its_options_and_its_source(ask, trainings) -> None:
    reproduce(replace(ask, rows="conditional-md"))
    facts = json.loads(RunFiles(Path(ask.output) / "conditional-md-seed0").done.read_text())
    assert facts["options"]["qfl"]["loss"] == "focal"
    assert facts["options"]["md"]["cond_iou"] == 0.5
    assert facts["commit"] == commit()
    assert facts["environment"]["torch"] == torch.__version__
    assert facts["teacher"]["AP"] > facts["online"]["AP"]
    assert "per_class" not in facts["online"]


def test_a_run_that_ended_before_it_was_noted_is_validated_again(
    ask, trainings, monkeypatch
) -> None:
    asked = []

    def evaluate(run: Path, data: Path, weights: str) -> dict:
        asked.append(weights)
        return {"AP": 0.25, "AP50": 0.5, "AP75": 0.2, "per_class": {}}

    def nothing_left(options: TrainOptions):
        run = trainings.fit(options)
        run.summaries.clear()
        return run

    monkeypatch.setattr("od_detr.training.fit.fit", nothing_left)
    monkeypatch.setattr("od_detr.inference.evaluate.evaluate_run", evaluate)
    rows = reproduce(replace(ask, rows="qfl"))["rows"]
    assert asked == ["online", "teacher"]
    assert rows[0]["mean"]["AP"] == 25


# ---- what is refused, in one line ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tabel3"], "tabel3: no such table; did you mean table3?"),
        (
            ["table3", "--rows", "qfl,md-clss"],
            "of Table 3: matching distillation of classes; did you mean md-cls?",
        ),
        (["table3", "--rows", "md-cls,,"], "--rows: '' is not a row of Table 3"),
        (["table3", "--seeds", "0"], "--seeds must be at least 1 (got 0)"),
        (["table3", "--epochs", "0"], "--epochs must be at least 1 (got 0)"),
        (["table3", "--image-size", "8"], "--image-size must be at least 16 (got 8)"),
        (["table3", "--lr", "-0.1"], "--lr must be at least 0 (got -0.1)"),
        (
            ["table3", "--first-seed", "-1"],
            "--first-seed must be between 0 and 4294967295 (got -1)",
        ),
        (["table3", "--scale", "paper", "--data", "nowhere"], "nowhere: no such folder"),
        (["table3", "--scale", "small"], "--scale small: needs --data"),
        (["table3", "--scale", "fine-tuning", "--init", "x"], "--scale fine-tuning: needs --data"),
        (["table3", "--scale", "fine-tuning", "--data", "x"], "--scale fine-tuning: needs --init"),
        (["table3", "--init", "x"], "--init: only for --scale fine-tuning"),
        (["table3", "--devices", "3"], "--devices 3: 8 images"),
        (["table3", "--devices", "2", "--jobs", "2"], "--jobs 2: each run uses 2 devices"),
        (["table3", "--sale", "tiny"], "--sale: no such option; did you mean --scale?"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments, line, tmp_path, scenes, trainings, capsys
) -> None:
    data = [] if "--scale" in arguments else ["--data", scenes]
    assert main(["reproduce", *arguments, *data, "--output", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert line in error
    assert "\n" not in error
    assert trainings.started == []
    assert not (tmp_path / "runs").exists()


def test_a_file_is_no_output(ask, trainings) -> None:
    Path(ask.output).touch()
    with pytest.raises(InputError, match=r"--output .*runs: is a file; give a folder"):
        reproduce(ask)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 7},
        {"image_size": 160},
        {"lr": 1e-3},
        {"data": "others"},
        {"backbone": "resnet50"},
    ],
)
def test_runs_of_other_options_are_never_mixed(change, ask, trainings, tmp_path) -> None:
    reproduce(ask)
    if "data" in change:
        change = {"data": empty_data(tmp_path / change["data"])}
    with pytest.raises(InputError, match="holds a run of other options"):
        reproduce(replace(ask, **change))
    assert trainings.started == named(*TABLE_3)


@pytest.mark.slow
def test_the_default_backbone_is_another_one_than_a_chosen_one(ask, trainings) -> None:
    """At a scale that leaves it open."""
    paper = replace(ask, scale="paper", rows="qfl")
    reproduce(replace(paper, backbone="resnet101"))
    with pytest.raises(InputError, match="--backbone resnet101 instead of resnet50"):
        reproduce(paper)


def test_data_and_output_may_move(ask, trainings, tmp_path) -> None:
    reproduce(ask)
    moved = Path(ask.output).rename(tmp_path / "elsewhere")
    reproduce(replace(ask, data=empty_data(tmp_path / "mounted" / "scenes"), output=str(moved)))
    assert trainings.started == named(*TABLE_3)


@pytest.mark.parametrize("table", TABLES)
def test_listing_shows_commands_and_the_papers_figures_and_trains_nothing(
    table, tmp_path, trainings, capsys
) -> None:
    output = tmp_path / "none"
    assert main(["reproduce", table, "--list", "--output", str(output)]) == 0
    text = capsys.readouterr().out
    for row in TABLES[table].experiments():
        assert row.command in text
        assert row.name in text
        assert row.reported is None or str(row.reported) in text
    assert trainings.started == []
    assert not output.exists()


# ---- side by side --------------------------------------------------------------------------------

WORK = """
import os, signal, sys, time
from pathlib import Path
from od_detr.errors import InputError, NonFiniteError

def work(options):
    place = Path(options.output)
    place.joinpath("threads").write_text(os.environ["OMP_NUM_THREADS"])
    print("working")
    if options.recipe == "baseline":
        return
    if options.recipe == "od":       # until it is asked to stop
        signal.signal(signal.SIGTERM, lambda *_: stop(place))
        place.joinpath("begun").touch()
        time.sleep(60)
    wait_for(place.parent / "od" / "begun")
    if options.recipe == "md":
        raise InputError("--opt.lr: too high")
    if options.recipe == "md+pd":
        raise NonFiniteError("nan in 'loss' of step 3")
    if options.recipe == "md+ag":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("unforeseen")

def stop(place):
    place.joinpath("saved").touch()
    raise KeyboardInterrupt

def wait_for(file):
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.05)

def everything(output):
    from od_detr.experiments.runs import side_by_side
    from od_detr.options import TrainOptions
    return list(side_by_side(work, [TrainOptions(data="", output=f"{output}/od", recipe="od")], 2))
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch):
    """Work that another process can import."""
    (tmp_path / "some_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    from some_work import work

    yield work
    sys.modules.pop("some_work")


def planned(tmp_path: Path, *recipes: str) -> list[TrainOptions]:
    return [
        TrainOptions(data="", output=str(tmp_path / recipe), recipe=recipe) for recipe in recipes
    ]


def test_runs_side_by_side_all_finish_with_one_thread_each(work, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    todo = [replace(planned(tmp_path, "baseline")[0], output=str(tmp_path / n)) for n in "abc"]
    done = list(side_by_side(work, todo, 2))
    assert sorted(done, key=todo.index) == todo
    for options in todo:
        assert (Path(options.output) / "threads").read_text() == "1"
        assert (Path(options.output) / "train.log").read_text() == "working\n"


def test_a_mistake_in_one_run_is_told_and_the_others_save(work, tmp_path) -> None:
    with pytest.raises(InputError, match=r"^--opt.lr: too high$"):
        list(side_by_side(work, planned(tmp_path, "od", "md", "baseline"), 2))
    assert (tmp_path / "od" / "saved").exists()
    assert not (tmp_path / "baseline").exists()


@pytest.mark.parametrize(
    ("recipe", "kind", "message"),
    [
        ("qfl", ProcessLostError, r"qfl/train.log: ValueError: unforeseen$"),
        ("md+pd", NonFiniteError, r"^nan in 'loss' of step 3$"),
        ("md+ag", ProcessLostError, r"killed by signal 9.*md\+ag/train.log"),
    ],
)
def test_a_run_that_fails_ends_the_command_as_it_would_alone(
    recipe, kind, message, work, tmp_path
) -> None:
    with pytest.raises(kind, match=message):
        list(side_by_side(work, planned(tmp_path, "od", recipe), 2))
    assert (tmp_path / "od" / "saved").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_runs_save_when_what_started_them_is_gone(number, work, tmp_path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import some_work; some_work.everything({str(tmp_path)!r})"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        # Whoever runs the tests in the background may have told its children to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert appears(tmp_path / "od" / "begun")
    starter.send_signal(number)
    starter.wait()
    assert appears(tmp_path / "od" / "saved")


def appears(file: Path) -> bool:
    for _ in range(600):
        if file.exists():
            return True
        time.sleep(0.05)
    return False
