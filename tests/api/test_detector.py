"""The Python interface trains, from nothing or from a detector, with the options of the command."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import pytest

import od_detr
from od_detr import Detector
from od_detr.errors import InputError, Interrupted
from od_detr.inference.evaluate import evaluate_run
from od_detr.inference.predictor import Predictor
from od_detr.options import OptimizerOptions, TrainOptions


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """The options that training was called with; nothing is trained."""
    calls: list[TrainOptions] = []

    def stop(options: TrainOptions) -> None:
        calls.append(options)
        raise Interrupted("seen")

    monkeypatch.setattr("od_detr.training.fit.fit", stop)
    return calls


@pytest.mark.parametrize(
    "begin",
    [
        lambda: od_detr.train("data", model="dino-4scale", queries=9, epochs="3", opt_lr=1e-3),
        lambda: Detector.create("dino-4scale", queries=9).fit("data", epochs=3, opt={"lr": "1e-3"}),
        lambda: Detector.create("dino-4scale", queries=5).fit(
            Path("data"), queries=9, epochs=3, **{"opt.lr": 1e-3}
        ),
    ],
)
def test_a_new_detector_is_trained_with_every_option_by_its_name(
    begin: Callable[[], Detector], seen: list[TrainOptions]
) -> None:
    with pytest.raises(Interrupted):
        begin()
    options = seen[0]
    assert (options.data, options.model, options.queries, options.epochs, options.opt) == (
        "data",
        "dino-4scale",
        9,
        3,
        OptimizerOptions(lr=1e-3),
    )
    assert options.init is None


@pytest.mark.parametrize(
    ("begin", "named"),
    [
        (lambda: Detector.create("dino"), "dino-4scale"),
        (lambda: Detector.create(backbon="resnet18"), "backbone"),
        (lambda: Detector.create(data="scenes"), r"fit\(data\)"),
        (lambda: Detector.create().fit("data", epoch=1), "epochs"),
        (lambda: od_detr.train("data", opt={"lrr": 1}), "did you mean opt_lr"),
        (lambda: od_detr.train("data", lr=1), r"did you mean opt_lr\?"),
        (lambda: od_detr.train("data", opt={"learning_rate": 1}), r"did you mean opt_lr\?"),
        (lambda: od_detr.train("data", opt_learning_rate=1), r"did you mean opt_lr\?"),
        (lambda: od_detr.train("data", device="cuda:0"), "cuda"),
        (lambda: Detector.from_pretrained("nowhere.pth"), "nowhere.pth"),
    ],
)
def test_a_wrong_name_or_value_is_refused_on_one_line(
    begin: Callable[[], object], named: str, seen: list[TrainOptions]
) -> None:
    with pytest.raises(InputError, match=named) as refused:
        begin()
    assert "\n" not in str(refused.value)
    assert not seen


def test_the_class_itself_names_the_ways_to_a_detector() -> None:
    with pytest.raises(InputError, match=r"from_pretrained\(RUN\) .* Detector.create\(MODEL\)"):
        Detector("runs/x")


def test_the_data_folder_of_a_new_detector_need_not_exist_when_it_is_created() -> None:
    assert Detector.create("dab-deformable-detr").options == {"model": "dab-deformable-detr"}


def test_evaluate_names_the_argument_that_was_meant() -> None:
    detector = Detector.__new__(Detector)
    with pytest.raises(InputError, match=r"^batch: no such argument; did you mean batch_size\?$"):
        detector.evaluate("data", batch=3)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"threshold": -1}, r"threshold must be between 0 and 1 \(got -1\.0\)"),
        ({"threshold": "high"}, r"threshold must be a number \(got 'high'\)"),
        ({"batch_size": 0}, r"batch_size must be at least 1 \(got 0\)"),
        ({"workers": -1}, r"workers must be at least 0 \(got -1\)"),
        ({"image_size": 2.5}, r"image_size must be a whole number \(got 2\.5\)"),
        ({"on_unreadable": "foo"}, r"on_unreadable must be one of stop, skip \(got 'foo'\)"),
        ({"precision": 16}, r"precision must be one of auto, 32, bf16 \(got '16'\)"),
        ({"weights": "last"}, r"weights must be one of best, online, teacher \(got 'last'\)"),
        ({"run": "other"}, r"run: no such argument; there are data, split, weights"),
    ],
)
def test_evaluate_checks_its_arguments_as_the_command_does(given: dict, line: str) -> None:
    detector = Detector.__new__(Detector)
    detector.source = "run"
    with pytest.raises(InputError, match=f"^{line}"):
        detector.evaluate("data", **given)


def test_evaluate_takes_what_the_command_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict] = []

    @wraps(evaluate_run)
    def evaluated(*_: object, **given: object) -> dict:
        seen.append(given)
        return {}

    monkeypatch.setattr("od_detr.inference.evaluate.evaluate_run", evaluated)
    detector = Detector.__new__(Detector)
    detector.source = "run"
    for threshold, expected in (("auto", None), (None, None), (1, 1.0), ("0.5", 0.5)):
        detector.evaluate("data", threshold=threshold, precision=32, output=Path("x.json"))
        assert seen[-1]["threshold"] == expected
        assert (seen[-1]["precision"], seen[-1]["output"]) == ("32", Path("x.json"))


def test_predict_names_the_arguments_there_are() -> None:
    detector = Detector.__new__(Detector)
    detector.predictor = Predictor.__new__(Predictor)
    for name, hint in {
        "conf": r"did you mean threshold\?",
        "thresold": r"did you mean threshold\?",
        "iou": "these detectors need no NMS",
        "max_det": "`od-detr predict` returns all",
        "colour": "there are source, threshold,",
    }.items():
        with pytest.raises(InputError, match=rf"^{name}: no such argument; {hint}"):
            detector.predict("street.jpg", **{name: 0.5})


def test_methods_of_other_packages_are_named() -> None:
    detector = Detector.__new__(Detector)
    for name, hint in {"train": "fit", "val": "evaluate"}.items():
        with pytest.raises(AttributeError, match=rf"{name}'; did you mean {hint}\?"):
            getattr(detector, name)
    assert not hasattr(detector, "colour")


def test_what_trains_nothing_returns_no_detector(seen: list[TrainOptions]) -> None:
    with pytest.raises(InputError, match=r"^dry_run: .*od-detr train --dry-run"):
        od_detr.train("data", dry_run=True)
    assert not seen


def test_a_detector_that_is_not_trained_says_how_to_get_one_that_is() -> None:
    with pytest.raises(AttributeError, match=r"no predict; fit returns the trained one"):
        Detector.create().predict("street.jpg")
    assert not hasattr(Detector.create(), "train")
