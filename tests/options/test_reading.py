"""Values from the command line, YAML and Python become the same options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from od_detr.errors import InputError
from od_detr.options import (
    MAY_CHANGE_ON_RESUME,
    PER_RUN,
    RESOLVED_LATER,
    SIZES,
    AuxiliarySwitches,
    OptimizerOptions,
    TrainOptions,
    check_limits,
    from_values,
)
from od_detr.options.config_file import read_config
from od_detr.options.fields import options_of, renamed
from od_detr.options.names import as_python, known_name
from od_detr.options.reading import build
from od_detr.plain_yaml import dump_yaml, parse_yaml

ROOT = Path(__file__).parents[2]


def made(**values: Any) -> TrainOptions:
    return from_values(TrainOptions, {"data": "x"} | values)


def test_every_spelling_of_a_value_gives_the_same_options() -> None:
    expected = made(opt=OptimizerOptions(lr=1e-4, drop=3))
    for values in (
        {"opt": {"lr": 1e-4, "drop": 3}},
        {"opt": {"lr": "1e-4", "drop": "3"}},
        {"opt_lr": 1e-4, "opt_drop": 3.0},
        {"opt.lr": "0.0001", "opt-drop": 3},
    ):
        assert made(**values) == expected
    assert made(ag={"stages": [1, 2]}).ag == AuxiliarySwitches(stages=(1, 2))
    assert made(precision=32, output=Path("runs") / "x").output == str(Path("runs") / "x")
    assert made(epochs="1e2").epochs == 100
    assert made(ema_stop="off").ema.stop == "off"
    assert made(backbone_options="{channels: [8, 16]}").backbone_options == {"channels": [8, 16]}
    assert made(queries=None).queries is made(queries="null").queries is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 0}, "epochs"),
    ({"epochs": True}, "epochs"),
    ({"epochs": 1.5}, "epochs"),
    ({"epochs": float("nan")}, "epochs"),
    ({"epochs": [1]}, "epochs"),
    ({"seed": 2**40}, "seed"),
    ({"opt_lr": float("inf")}, "opt_lr"),
    ({"opt.lr": False}, "opt_lr"),
    ({"resume": 1}, "resume"),
    ({"resume": "yes"}, "resume"),
    ({"data": None}, "data"),
    ({"recipe": "best"}, "recipe"),
    ({"ag": {"stages": ["a"]}}, "ag_stages"),
    ({"backbone_options": [1]}, "backbone_options"),
    ({"classes": np.array(["a", "b"])}, "classes"),
    ({"hidden_dim": 33}, "hidden_dim"),
    ({"opt": None}, "opt"),
    ({"opt": [1]}, "opt"),
]


@pytest.mark.parametrize(("values", "name"), WRONG)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError) as refused:
        made(**values)
    assert str(refused.value).startswith(name)
    assert "\n" not in str(refused.value)


def test_an_unknown_argument_leads_to_a_keyword() -> None:
    with pytest.raises(InputError, match=r"^lr: no such option; did you mean opt_lr\?$"):
        made(lr=1e-4)
    for name in options_of(TrainOptions):
        assert as_python(name).isidentifier()
        assert known_name(TrainOptions, as_python(name)) == name


def test_options_made_in_python_pass_the_same_checks() -> None:
    check_limits(TrainOptions("x"))
    for wrong in (
        TrainOptions("x", epochs=0),
        TrainOptions("x", hidden_dim=36),
        TrainOptions("x", opt=OptimizerOptions(drop=0)),
        TrainOptions("x", ag=AuxiliarySwitches(max_queries=0)),
    ):
        with pytest.raises(InputError, match=r"^--"):
            check_limits(wrong)


def test_what_is_written_to_yaml_is_read_back() -> None:
    chosen = made(epochs=3, ag={"stages": [1, 2]}, ema={"stop": "off"}, opt={"lr": 1e-7})
    text = dump_yaml(yaml_able(dataclasses.asdict(chosen)))
    assert from_values(TrainOptions, parse_yaml(text)) == chosen


def yaml_able(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: yaml_able(item) for key, item in value.items()}
    return [yaml_able(item) for item in value] if isinstance(value, tuple | list) else value


def test_yaml_reads_numbers_and_words_as_people_mean_them() -> None:
    text = "[on, 1e-4, 3, .5, off, true, 1.5e3, '1', null, yes, 010, 08, -7, 0, 1:30, 0x1F, 1_000]"
    expected = ["on", 1e-4, 3, 0.5, "off", True, 1500.0, "1", None, "yes"]
    assert parse_yaml(text) == [*expected, "010", "08", -7, 0, "1:30", 31, "1_000"]
    assert made(epochs="010").epochs == 10


@given(st.text(alphabet="0123456789+-.:_eExXoOtrufalsn~ ", max_size=8))
@example("08")
@example("1e5")
@example("0o17")
@example("1:30")
def test_a_name_that_looks_like_a_number_is_written_and_read_as_a_name(name: str) -> None:
    assert parse_yaml(dump_yaml({"names": [name]})) == {"names": [name]}
    assert yaml.safe_load(dump_yaml([name])) == [name]  # as other packages read it


def test_an_earlier_name_in_a_call_or_a_file_is_accepted_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(**{"dn.loss": "qfl"}).denoising.loss == made(dn_loss="qfl").denoising.loss == "qfl"
    lines = capsys.readouterr().err.splitlines()
    assert lines == 2 * [
        "warning: dn_loss is now called denoising_loss; the old name will be removed in version 0.2"
    ]
    file = tmp_path / "options.yaml"
    file.write_text("dn: {loss: qfl}\n")
    assert read_config(TrainOptions, file) == {"denoising.loss": "qfl"}
    assert capsys.readouterr().err == ""  # a run's own file
    assert read_config(TrainOptions, file, "--config ") == {"denoising.loss": "qfl"}
    warning = f"warning: --config {file}: dn.loss is now called denoising.loss; "
    assert capsys.readouterr().err.startswith(warning)


@given(st.text(alphabet="abc:{}[]&*!|>-# \n'\"0123456789.%?,\t", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError:
        return


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    sorted((ROOT / "docs" / "evidence").glob("*/*/config.yaml")),
    ids=lambda f: f.parent.name,
)
def test_every_recorded_run_can_be_loaded(file: Path) -> None:
    """Some are older than the present names of options."""
    recorded = yaml.safe_load(file.read_text())
    options = build(TrainOptions, read_config(TrainOptions, file), str)
    levels = recorded.get("num_levels", recorded.get("levels"))
    assert (options.num_levels, options.epochs, options.recipe) == (
        levels,
        recorded["epochs"],
        recorded["recipe"],
    )


def test_the_rules_of_options_follow_from_their_declarations() -> None:
    assert set(MAY_CHANGE_ON_RESUME) == {
        "data", "val_data", "output", "resume", "resume_with_other_data", "dry_run", "epochs",
        "patience", "device", "precision", "matmul", "logger",
        "checkpoint_encoder", "compile", "workers", "save_minutes", "nonfinite_limit", "eval",
    }  # fmt: skip
    assert SIZES == (
        "hidden_dim", "encoder_layers", "decoder_layers", "queries", "feedforward", "num_levels",
        "dropout",
    )  # fmt: skip
    assert set(RESOLVED_LATER) == {
        *SIZES, "devices", "nodes", "opt.lr", "opt.backbone_lr", "opt.drop", "ema.decay",
        "qfl.class_weight",
        "eval.topk", "model", "backbone", "image_size", "epochs", "batch_size",
    }  # fmt: skip
    assert PER_RUN == ("resume", "resume_with_other_data", "dry_run", "budget")


def test_every_option_is_declared_with_a_sentence_and_a_default_to_show() -> None:
    for option in options_of(TrainOptions).values():
        about = option.about
        assert about.help[0].isupper(), option.name
        assert about.help.endswith("."), option.name
        assert about.shown or option.default is not None, option.name
    assert not set(renamed(TrainOptions)) & set(options_of(TrainOptions))
