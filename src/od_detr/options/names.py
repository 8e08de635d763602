"""Finds the option that a name means: its own, an earlier one, or one of another package."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping

from od_detr.errors import InputError
from od_detr.options.fields import Option, flag_name, groups_of, options_of, renamed

Naming = Callable[[str], str]
IMAGE_SIZE = "train and evaluate have --image-size; in predict, images are resized as in training"
OPTIMIZER = "`od-detr train` has AdamW only; its --opt.lr and --opt.wd set it"
SCHEDULE = "`od-detr train` divides the rate by 10 once, after the epoch of --opt.drop"
CLASSES = "the classes are those of the data; `od-detr train` has --classes to keep some, by name"
# What people look for under a name that stands for no option of ours. The hint names the command
# that it is about, for it is given to all of them.
ELSEWHERE = {
    "conf": "`od-detr predict` has --threshold",
    "threshold": "`od-detr predict` has --threshold",
    "image_size": IMAGE_SIZE,
    "imgsz": IMAGE_SIZE,
    "save": "`od-detr predict` always writes drawn copies, to its --output",
    "show": "`od-detr predict` writes drawn copies to its --output; look at them there",
    "iou": "these detectors need no NMS",
    "optimizer": OPTIMIZER,
    "momentum": OPTIMIZER,
    "cos_lr": SCHEDULE,
    "lr_scheduler": SCHEDULE,
    "lrf": SCHEDULE,
    "nc": CLASSES,
    "num_classes": CLASSES,
    "cache": "annotations and image headers are cached by themselves, and images are not",
    "exist_ok": "a run never overwrites another one; give another --output, or --resume",
    "plots": "`od-detr evaluate` has --figure; training draws samples and writes metrics.csv",
    "detect": "detecting is a command of its own, `od-detr predict`",
    "predict": "detecting is a command of its own, `od-detr predict`",
    "max_det": "`od-detr predict` returns all that is above its --threshold",
    "vid_stride": "`od-detr predict` reads every frame of a video",
    "stream": "`od-detr predict` reads videos and folders piece by piece anyway",
    "fraction": "training always takes all images; --classes and another --data leave some out",
}
# Words of other packages for values of ours.
MEANT = {
    "gpu": "cuda",
    "0": "cuda",
    "dino": "dino-4scale",
    "deformable-detr": "deformable-detr-plus",
}


def as_flag(name: str) -> str:
    """How an option is named in messages about the command line: `--opt.backbone-lr`."""
    return f"--{flag_name(name)}"


def as_python(name: str) -> str:
    """How an option is named in messages about a call from Python: `opt.backbone_lr`."""
    return name


def known_name(options: type, name: str) -> str | None:
    """The dotted name of the option called `name`, or None.

    Hyphens stand for underscores, and `opt_lr` for `opt.lr`. Earlier names are known too.
    """
    plain = name.replace("-", "_")
    spellings = [plain, f"{plain}_"] + [
        f"{each}.{plain.removeprefix(f'{each}_')}"
        for each in groups_of(options)
        if plain.startswith(f"{each}_")
    ]
    before = renamed(options)
    for spelling in spellings:
        if spelling in options_of(options):
            return spelling
        if spelling in before:
            return before[spelling]
    return None


def no_such_option(options: type, name: str, shown: str, naming: Naming) -> InputError:
    """The error for an unknown option, with the option that was probably meant.

    Args:
        options: dataclass of options.
        name: what was given, without hyphens in front.
        shown: what was given, as the message shows it.
        naming: how the message names an option.
    """
    plain = name.replace("-", "_").lower()
    known = options_of(options)
    if plain in groups_of(options):
        members = [naming(each) for each in known if each.startswith(f"{plain}.")]
        return InputError(f"{shown} is a group of options; give one of {', '.join(members)}")
    meant = _meant(known, plain)
    if meant:
        hint = f"did you mean {' or '.join(_shown(known[each], naming) for each in meant)}?"
    else:
        hint = ELSEWHERE.get(plain, "see --help")
    return InputError(f"{shown}: no such option; {hint}")


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The most similar of the words, or None if none is similar."""
    return next(iter(difflib.get_close_matches(word, list(words), 1)), None)


def _shown(option: Option, naming: Naming) -> str:
    """An option as a hint names it; one that is given without a name is no flag."""
    bare = option.about.positional and naming is as_flag
    return f"{option.name.upper()}, given without a name" if bare else naming(option.name)


def _meant(known: Mapping[str, Option], name: str) -> list[str]:
    """The options that a wrong name may mean: a synonym, the last part of a name, or a typo."""
    synonyms = [each.name for each in known.values() if name in each.about.known_as]
    if name in ELSEWHERE and not synonyms:
        return []
    members = [each for each in known if each.rpartition(".")[2] == name]
    near = nearest(name, known)
    return synonyms or members or ([near] if near else [])
