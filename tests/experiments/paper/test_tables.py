"""The rows are the paper's: they differ in what the table says, and print what the paper prints."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest
import torch

from od_detr.cli.parsing.parser import parse
from od_detr.cli.train import TrainCommand
from od_detr.detectors import DetectionTransformer, build_detector
from od_detr.errors import InputError
from od_detr.experiments.demo import demo_options
from od_detr.experiments.experiment import Experiment
from od_detr.experiments.scales import SMALL_IMAGES, on_devices, paper, small, tiny
from od_detr.experiments.tables import STUDIES, TABLES
from od_detr.objectives import total
from od_detr.options import SIZES, TrainOptions
from od_detr.options.train import DEFAULT_MODEL
from od_detr.structures import Batch, Targets
from od_detr.training.recipe import make_recipe
from od_detr.training.setup.epochs import default_epochs
from od_detr.training.teacher import Teacher

PAPER = Path(__file__).parents[1] / "recorded" / "paper_tables.tsv"  # its tables, cell by cell
ROWS = [(name, row) for name, table in TABLES.items() for row in table.rows]
RUNS = {row().name: row() for _, row in ROWS}
STUDIED = {row.name: row for table in STUDIES.values() for row in table.experiments()}

# What a row changes against another of its table, as the paper words it.
DIFFERENCES: dict[str, dict[tuple[str, str], dict[str, tuple]]] = {
    "table1": {
        ("baseline-50", "od"): {"recipe": ("baseline", "od"), "epochs": (50, 24)},
        ("dab-baseline-50", "dab-baseline"): {"epochs": (50, 24)},
        ("dab-baseline", "dab-qfl"): {"recipe": ("baseline", "qfl")},
        ("dab-qfl", "dab-od"): {"recipe": ("qfl", "od")},
        ("od", "dab-od"): {"model": ("deformable-detr-plus", "dab-deformable-detr")},
        ("dino4-baseline-12", "dino4-baseline"): {"epochs": (12, 24)},
        ("dino4-baseline", "dino4-qfl"): {"recipe": ("baseline", "qfl")},
        ("dino4-qfl", "dino4-od"): {"recipe": ("qfl", "od")},
        ("dino4-baseline-12", "dino4-od-12"): {"recipe": ("baseline", "od")},
        ("dino4-baseline-12", "dino5-baseline-12"): {"model": ("dino-4scale", "dino-5scale")},
        ("dino5-baseline-12", "dino5-od-12"): {"recipe": ("baseline", "od")},
    },
    "table2": {
        ("baseline-50", "baseline"): {"epochs": (50, 24)},
        ("baseline", "qfl"): {"recipe": ("baseline", "qfl")},
        ("qfl", "md"): {"recipe": ("qfl", "md")},
        ("md", "md+pd"): {"recipe": ("md", "md+pd")},
        ("md", "md+ag"): {"recipe": ("md", "md+ag")},
        ("md+pd", "od"): {"recipe": ("md+pd", "od")},
    },
    "table3": {
        ("qfl", "md-cls"): {"recipe": ("qfl", "md"), "md.reg": (True, False)},
        ("md-cls", "md-cls-conditional"): {"md.cond_iou": (None, 0.5)},
        ("md-cls-conditional", "conditional-md"): {"qfl.loss": ("qfl", "focal")},
    },
    "table4": {
        ("md-cls", "md-wd1"): {"md.reg": (False, True), "md.wd": (0.51, 1.0)},
        ("md-wd1", "md"): {"md.wd": (1.0, 0.51)},
        ("md", "md-wd-cls"): {"md.wd_cls": (False, True)},
    },
    "table5": {
        ("md", "md+pd"): {"recipe": ("md", "md+pd")},
        ("pd-naive", "pd-tood"): {"pd.tood": (False, True), "pd.reg_unmatched": ("one", "off")},
        ("pd-tood", "pd-no-stop"): {"pd.listen2stu": (False, True)},
        ("pd-no-stop", "md+pd"): {"ema.stop": ("off", "auto")},
        ("pd-no-stop", "qpad"): {"query_prior.on": (False, True)},
    },
    "table6": {
        ("ag-original", "ag-rematch"): {"ag.match": ("original", "rematch")},
        ("ag-rematch", "md+ag"): {"ag.match": ("rematch", "md")},
    },
    "table7": {("dino4-baseline", "dino4-od"): {"recipe": ("baseline", "od")}},
    "fig1": {("baseline", "od"): {"recipe": ("baseline", "od")}},
    "fig5": {
        ("baseline", "od"): {"recipe": ("baseline", "od")},
        ("dino4-baseline", "dino4-od"): {"recipe": ("baseline", "od")},
    },
    "fig6": {
        ("md", "pd-no-stop"): {"recipe": ("md", "md+pd"), "ema.stop": ("auto", "off")},
        ("pd-no-stop", "md+pd"): {"ema.stop": ("off", "auto")},
    },
}


def at_paper(row: Experiment) -> TrainOptions:
    return row.options(paper(Path("COCO"), Path()))


def at_tiny(row: Experiment) -> TrainOptions:
    return row.options(tiny(Path("scenes"), Path()))


def flat(options: TrainOptions) -> dict:
    """Options by their dotted names."""
    found = {}
    for name, value in asdict(options).items():
        if isinstance(value, dict) and name != "backbone_options":
            found |= {f"{name}.{switch}": setting for switch, setting in value.items()}
        else:
            found[name] = value
    return found


@pytest.mark.parametrize("table", TABLES)
def test_rows_differ_in_exactly_what_the_table_says(table: str) -> None:
    rows = {row.name: row for row in TABLES[table].experiments()}
    assert {name for pair in DIFFERENCES[table] for name in pair} == rows.keys()
    for (first, second), expected in DIFFERENCES[table].items():
        for scale in (at_paper, at_tiny):
            one, other = flat(scale(rows[first])), flat(scale(rows[second]))
            found = {key: (one[key], other[key]) for key in one if one[key] != other[key]}
            if scale is at_tiny:  # schedules are in proportion there
                follow = {"epochs", "opt.drop"} if "epochs" in expected else set()
                found = {key: pair for key, pair in found.items() if key not in follow}
                expected = {key: pair for key, pair in expected.items() if key != "epochs"}
            assert found == expected, (first, second)


def test_rows_of_one_name_are_one_run() -> None:
    for _, row in ROWS:
        for scale in (at_paper, at_tiny):
            assert scale(row()) == scale(RUNS[row().name])


def test_runs_of_different_names_are_different() -> None:
    resolved = [str(flat(at_paper(row))) for row in RUNS.values()]
    assert len(set(resolved)) == len(resolved)


def test_rows_that_the_paper_repeats_are_shared() -> None:
    named = {table: [row.name for row in TABLES[table].experiments()] for table in TABLES}
    assert named["table3"][2] == named["table4"][0] == "md-cls"
    assert (
        named["table4"][2] == named["table2"][3] == named["table5"][0] == named["fig6"][0] == "md"
    )
    assert named["table5"][4] == named["table2"][4] == named["fig6"][2] == "md+pd"
    assert named["table6"][2] == named["table2"][5] == "md+ag"
    assert named["table7"] == ["dino4-baseline", "dino4-od"]
    assert [row.weights for row in TABLES["table7"].experiments()] == ["teacher", "teacher"]


def test_only_rows_with_stop_update_stop_the_teacher() -> None:
    stopped = {row.name for row in RUNS.values() if at_paper(row).stops_update}
    assert stopped == {"od", "dab-od", "dino4-od", "dino4-od-12", "dino5-od-12", "md+pd"}


@pytest.mark.parametrize(
    ("table", "row"), ROWS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_rows_docstring_holds_its_command_and_the_papers_figures(table: str, row) -> None:
    text, experiment = " ".join(row.__doc__.split()), row()
    assert experiment.command in text
    if experiment.reported is None:
        assert "Paper:" not in text
    else:
        assert f"Paper: {experiment.reported}." in text


@pytest.mark.parametrize("row", (RUNS | STUDIED).values(), ids=lambda row: row.name)
def test_a_rows_command_trains_what_the_paper_scale_trains(row: Experiment) -> None:
    command = shlex.split(row.command.removeprefix("od-detr train "))
    parsed = dict(vars(parse("train", TrainCommand, command, reads_config=True)))
    parsed["model"] = parsed["model"] or DEFAULT_MODEL
    steps = 118_287 // 16  # an epoch of COCO
    parsed["epochs"] = parsed["epochs"] or default_epochs(steps, trained=False)
    ours = vars(at_paper(row))
    assert {key: parsed[key] for key in ours if key != "output"} == {
        key: value for key, value in ours.items() if key != "output"
    }
    assert ours["batch_size"] * ours["devices"] == 16


def test_the_papers_figures_are_those_it_prints() -> None:
    printed = [line.split("\t") for line in PAPER.read_text().splitlines()]
    for table, row in ROWS:
        experiment = row()
        if experiment.reported is None or experiment.title.endswith(
            "(control)"
        ):  # a row of another table
            continue
        names = {re.split(part, experiment.title)[0] for part in ("$", ",", ":")}
        wanted = str(experiment.reported).split(" / ")
        found = [
            cells for cells in printed if any(cells[i : i + 3] == wanted for i in range(len(cells)))
        ]
        found = [
            cells
            for cells in found
            if cells[0] in names and (table != "table1" or cells[2] == f"{experiment.epochs}")
        ]
        assert found, (table, experiment.title)


@cache
def detector_of(model: str) -> DetectionTransformer:
    torch.manual_seed(0)
    options = at_tiny(next(row for row in RUNS.values() if row.model == model))
    sizes = {name: getattr(options, name) for name in SIZES}
    extra = {"denoising": 5} if model.startswith("dino") else {}
    return build_detector(
        model,
        3,
        backbone=options.backbone,
        backbone_options=options.backbone_options,
        **sizes,
        **extra,
    )


def tiny_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    boxes = 0.3 + 0.3 * torch.rand(5, 4, generator=generator)
    targets = Targets(boxes, torch.randint(3, (5,), generator=generator), (4, 1))
    return Batch(images, torch.zeros(2, 64, 64, dtype=torch.bool), targets, (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_rows_recipe_gives_finite_losses_and_gradients(name: str) -> None:
    options = at_tiny(RUNS[name])
    student = detector_of(options.model).train()
    student.zero_grad()
    recipe = make_recipe(options, student, Teacher(student) if options.distils else None)
    loss = total(recipe.losses(student, tiny_batch()))
    loss.backward()
    assert loss.isfinite()
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_scales_epochs_stand_for_24_and_the_drop_keeps_its_share() -> None:
    scale = tiny(Path("scenes"), Path())
    for epochs, share in ((24, 20 / 24), (12, 11 / 12), (50, 40 / 50)):
        row = Experiment("x", "x", "od", epochs=epochs)
        ten_times = row.options(replace(scale, epochs=240))
        assert ten_times.epochs == 10 * epochs
        assert ten_times.drop_epoch == round(10 * epochs * share)
        assert row.options(paper(Path("COCO"), Path())).drop_epoch == round(epochs * share)
        short = row.options(replace(scale, epochs=4))
        assert 1 <= short.drop_epoch < short.epochs


def test_a_scales_learning_rate_is_every_hosts_and_the_papers_each_hosts_own() -> None:
    for row in ("od", "dab-od", "dino4-od"):
        assert at_tiny(RUNS[row]).opt.lr == tiny(Path("scenes"), Path()).opt.lr
        assert at_paper(RUNS[row]).opt.lr is None


def test_hosts_named_after_their_levels_keep_them() -> None:
    assert at_tiny(RUNS["od"]).num_levels == 3
    assert at_tiny(RUNS["dino4-od"]).num_levels is None
    assert len(detector_of("dino-5scale").backbone.channels) == 4


def test_the_tiny_scale_is_the_demos_detector() -> None:
    ours, demo = flat(at_tiny(RUNS["od"])), flat(demo_options(Path("scenes"), Path()))
    assert {key for key in ours if ours[key] != demo[key]} == {
        "output",
        "epochs",
        "eval.every",
        "opt.drop",
    }


@pytest.mark.parametrize(
    ("devices", "batch", "accumulate"), [(8, 2, 1), (4, 2, 2), (1, 2, 8), (16, 1, 1)]
)
def test_the_total_batch_is_the_same_on_any_devices(
    devices: int, batch: int, accumulate: int
) -> None:
    scale = on_devices(paper(Path("COCO"), Path()), devices)
    assert (scale.devices, scale.batch_size, scale.accumulate) == (devices, batch, accumulate)


def test_devices_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match=r"--devices 3: 16 images"):
        on_devices(paper(Path("COCO"), Path()), 3)


def test_the_small_scale_trains_on_as_many_images_of_any_small_data_set_and_two_epochs_of_others(
    tmp_path,
) -> None:
    for images, epochs in ((100, SMALL_IMAGES / 100), (500, SMALL_IMAGES / 500), (5000, 2)):
        listed = [
            {"id": number, "file_name": f"{number}.png", "width": 8, "height": 8}
            for number in range(images)
        ]
        content = {"images": listed, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
        for split in ("train", "val"):
            (tmp_path / f"{split}.json").write_text(json.dumps(content))
        assert small(tmp_path, Path()).epochs == epochs


@pytest.mark.parametrize("scale", [small, paper])
def test_scales_of_real_images_need_data(scale) -> None:
    with pytest.raises(InputError, match="needs --data"):
        scale(None, Path())
