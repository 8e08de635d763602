"""Options, YAML files and paths on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.hostile.harness import FINE, REFUSED, SKIPPED, Case, command
from tests.hostile.material import flags, nothing, written

LONG = "a" * 5000


def training(*words: str) -> Callable[[Path], list[str]]:
    """`od-detr train --dry-run` of the smallest run; a refusal comes before any step."""
    return command("train", "--data", "data", "--output", "out", "--dry-run", *flags(), *words)


def option_cases() -> list[Case]:
    rows: list[tuple[list[str], str]] = [
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "-1"], "--epochs"),
        (["--epochs", "1e400"], "--epochs"),
        (["--epochs", "9" * 5000], "--epochs"),
        (["--epochs", "ten"], "--epochs"),
        (["--epochs", ""], "--epochs"),
        (["--epochs", "1" + "0" * 30], "--epochs"),
        (["--epochs"], "--epochs"),
        (["--epoch", "3"], "--epochs"),
        (["--batch-size", "1000000000000"], "--batch-size"),
        (["--batch-size", "nan"], "--batch-size"),
        (["--accumulate", "1000000000000000"], "--accumulate"),
        (["--image-size", "100000000"], "--image-size"),
        (["--image-size", "15"], "--image-size"),
        (["--hidden-dim", "1000000"], "hidden.dim"),
        (["--hidden-dim", "33"], "--hidden-dim"),
        (["--feedforward", "1000000000000"], "feedforward"),
        (["--encoder-layers", "1000000"], "encoder.layers"),
        (["--decoder-layers", "1000000"], "decoder.layers"),
        (["--queries", "1000000000"], "queries"),
        (["--num-levels", "1000"], "num.levels"),
        (["--hidden-dim", "8192", "--feedforward", "65536", "--encoder-layers", "100"],
         "parameters"),
        (["--devices", "3000000"], "--devices"),
        (["--devices", "0"], "--devices"),
        (["--devices", "-1"], "--devices"),
        (["--devices", "9" * 40], "--devices"),
        (["--nodes", "3000000"], "--nodes"),
        (["--workers", "1000000"], "--workers"),
        (["--workers", "-1"], "--workers"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "99999999999999999999"], "--seed"),
        (["--opt.lr", "nan"], "--opt.lr"),
        (["--opt.lr", "inf"], "--opt.lr"),
        (["--opt.lr", "-1"], "--opt.lr"),
        (["--opt.lr", "1e999"], "--opt.lr"),
        (["--opt.lr", "0x10"], "--opt.lr"),
        (["--opt.lr", "1e39"], "--opt.lr"),
        (["--opt.wd", "1e39"], "--opt.wd"),
        (["--opt.clip", "-0.1"], "--opt.clip"),
        (["--opt.clip", "nan"], "--opt.clip"),
        (["--opt.drop", "0"], "--opt.drop"),
        (["--opt.warmup", "-1"], "--opt.warmup"),
        (["--opt", "3"], "--opt"),
        (["--ema.decay", "1.5"], "--ema.decay"),
        (["--ema.decay", "nan"], "--ema.decay"),
        (["--dropout", "-1"], "--dropout"),
        (["--save-minutes", "nan"], "--save-minutes"),
        (["--nonfinite-limit", "0"], "--nonfinite-limit"),
        (["--val-fraction", "0"], "--val-fraction"),
        (["--val-fraction", "2"], "--val-fraction"),
        (["--classes", "dog"], "dog"),
        (["--classes", ","], "--classes|classes"),
        (["--val-data", "nowhere"], "nowhere"),
        (["--val-data", "/etc/passwd"], "/etc/passwd"),
        (["--recipe", "od-detr"], "--recipe"),
        (["--model", "detr"], "--model"),
        (["--model", LONG], "--model"),
        (["--precision", "8"], "--precision"),
        (["--precision", "fp16"], "--precision"),
        (["--device", "cuda:99"], "--device"),
        (["--device", "tpu"], "--device"),
        (["--ag.stages", "[0]"], "--ag.stages"),
        (["--ag.stages", "[" * 100], "--ag.stages"),
        (["--ag.stages", "[1e9]"], "--ag.stages"),
        (["--ag.groups", "1000000000"], "--ag.groups"),
        (["--denoising.nonsense", "1"], "--denoising"),
        (["--eval.topk", "1000000000"], "eval.topk|top_k"),
        (["--backbone", ""], "--backbone"),
        (["--backbone", "resnet19"], "--backbone resnet19"),
        (["--backbone", LONG], "--backbone"),
        (["--backbone", "hf-hub:someone/backdoor"], "--backbone hf-hub"),
        (["--backbone", "hf_hub:someone/backdoor"], "--backbone"),
        (["--backbone", "local-dir:/etc"], "--backbone"),
        (["--backbone", "https://example.com/x"], "--backbone"),
        (["--backbone", "../../etc/passwd"], "--backbone"),
        (["--backbone", "resnet18\0"], "--backbone"),
        (["--backbone", "vit_base_patch16_224"], "--backbone"),
        (["--backbone-options", "{pretrained_cfg: {url: 'http://example.com'}}"], "pretrained_cfg"),
        (["--backbone-options", "{checkpoint_path: /etc/passwd}"], "checkpoint_path"),
        (["--backbone-options", "{channels: [1000000000, 8, 8, 8]}"], "channels"),
        (["--backbone-options", "{channels: [8192, 8192, 8192, 8192], layers: [64, 64, 64, 64]}"],
         "--backbone"),
        (["--backbone-options", "{layers: [-1, 1, 1, 1]}"], "--backbone"),
        (["--backbone-options", "{layers: [1]}"], "--backbone"),
        (["--backbone-options", "{channels: []}"], "--backbone"),
        (["--backbone-options", "{channels: [0, 0, 0, 0]}"], "--backbone"),
        (["--backbone-options", "{channels: [a, b]}"], "channels"),
        (["--backbone-options", "{channels: [.nan, 8, 8, 8]}"], "channels"),
        (["--backbone-options", "{" + "a: {" * 40 + "}" * 41], "--backbone-options"),
        (["--backbone-options", "[1, 2]"], "--backbone-options"),
        (["--backbone-options", "{1: 2}"], "--backbone-options"),
        (["--backbone-weights", "nowhere.safetensors"], "nowhere"),
        (["--backbone-weights", "data"], "data"),
        (["--backbone-weights", "/etc/passwd"], "/etc/passwd"),
        (["--init", "nowhere"], "nowhere"),
        (["--init", "data"], "data"),
        (["--init", "/etc/passwd"], "/etc/passwd"),
        (["--init", LONG], "too long"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "/etc/passwd"], "/etc/passwd"),
        (["--data", ""], "no annotations found|--data"),
        (["--data", LONG], "too long|no such folder"),
        (["--data", "data\0"], "--data"),
        (["--data", "https://example.com/data.zip"], "https:"),
        (["--data", "data/train.json"], "train.json"),
        (["--output", "photo.png"], "photo.png"),
        (["--output", "photo.png/run"], "photo.png"),
        (["--output", "data"], "--output data"),
        (["--output", "run"], "last.ckpt"),
        (["--output", LONG], "too long"),
        (["--output", "out\0"], "--output"),
        (["--config", "nowhere.yaml"], "nowhere"),
        (["--config", "data"], "--config data"),
        (["--config", "photo.png"], "--config photo.png"),
        (["--config", LONG], "too long"),
        (["--config", "/dev/zero"], "--config /dev/zero"),
        (["--replay", "nowhere.json"], "nowhere"),
        (["--replay", "photo.png"], "photo.png|config.yaml"),
        (["--replay", "data"], "--replay data"),
        (["--nonsense", "1"], "--nonsense"),
        (["--" + LONG, "1"], "no such option"),
        (["--", "x"], "."),
        (["stray"], "stray"),
        (["epochs=3"], "--epochs 3"),
        (["--resume"], "last.ckpt"),
    ]  # fmt: skip
    cases = [
        Case("options", shown(words), nothing, training(*words), REFUSED, names)
        for words, names in rows
    ]
    return [*cases, Case("options", "none of them wrong", nothing, training(), FINE)]


def shown(words: list[str]) -> str:
    text = " ".join(words).replace("\0", "\\0")
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"


YAML = {
    "unknown option": ("epoch: 3", "epoch: "),
    "unknown nested option": ("opt:\n  lrr: 3", r"opt\.lrr"),
    "a list": ("- epochs", "holds no options"),
    "empty": ("", "holds no options"),
    "a text": ("epochs", "holds no options"),
    "not YAML": ("epochs: [1", r"line \d"),
    "tabs": ("opt:\n\tlr: 1", r"line \d"),
    "key twice": ("epochs: 3\nepochs: 4", "given twice"),
    "key twice, old and new name": ("levels: 4\nnum_levels: 4", "given twice"),
    "a group that is a number": ("opt: 3", "opt is a group"),
    "a group that is null": ("opt:", "opt is a group"),
    "a group that is a list": ("opt: [1]", "opt is a group"),
    "wrong type": ("epochs: [3]", "epochs"),
    "wrong range": ("epochs: 0", "epochs"),
    "not a number": ("opt:\n  lr: .nan", r"opt\.lr"),
    "a cycle": ("opt: &a\n  lr: *a", "anchor"),
    "a billion laughs": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "anchor",
    ),
    "merge key": ("<<: {epochs: 3}", ""),
    "python object": ("epochs: !!python/object/apply:os.system ['touch canary']", r"line \d"),
    "python name": ("epochs: !!python/name:os.system", r"line \d"),
    "unknown tag": ("epochs: !mine 3", r"line \d"),
    "binary": ("epochs: !!binary aGVsbG8=", "epochs"),
    "a date": ("epochs: 2001-01-01", "epochs"),
    "deep lists": ("backbone_options: " + "[" * 100_000, "levels deep"),
    "deep mappings": ("backbone_options: " + "{a: " * 100, "levels deep"),
    "2 million characters": ("# " + "x" * 2_000_000, "characters"),
    "2 million options": ("a: 1\n" * 400_000, "characters"),
    "a key that is a list": ("? [a, b]\n: 3", "no such option|line"),
    "a key that is a number": ("3: 4", "3: no such option"),
    "a key that is null": ("~: 4", "no such option"),
    "two documents": ("epochs: 3\n---\nepochs: 4", r"line \d|document"),
    "a directive": ("%TAG ! tag:x,2000:\n---\nepochs: 3", r"."),
    "control characters": ("epochs: \x07", r"line \d|not valid|special"),
    "wrong letters": (b"epochs: \xff", "not UTF-8"),
    "UTF-16": ("epochs: 3".encode("utf-16"), "not UTF-8|special|not valid"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8|special"),
    "JSON with a lone surrogate": ('{"backbone": "\\ud800"}', "backbone"),
    "a path with NUL": ('data: "a\\0b"', "data"),
}
HARMLESS = ("a directive", "merge key")


def yaml_cases() -> list[Case]:
    cases = []
    for name, (text, names) in YAML.items():
        use = training("--config", "own.yaml")
        expected = FINE if name in HARMLESS else REFUSED
        cases.append(
            Case(
                "YAML",
                name,
                written(text, "own.yaml"),
                use,
                expected,
                rf"(?s)own\.yaml.*({names})" if expected == REFUSED else "",
            )
        )
    return cases


def command_cases() -> list[Case]:
    rows: list[tuple[list[str], str, str]] = [
        ([LONG], REFUSED, "no such command"),
        (["\0"], REFUSED, "no such command"),
        (["predict", "run", "nowhere.png"], REFUSED, "nowhere.png"),
        (["predict", "run", "/etc/passwd"], SKIPPED, "/etc/passwd"),
        (["predict", "run", "https://example.com/a.png"], REFUSED, "https:"),
        (["predict", "run", "rtsp://camera"], REFUSED, "rtsp:"),
        (["predict", "run", LONG], REFUSED, "aaaa"),
        (["predict", "run", "a\0b"], REFUSED, "."),
        (["predict", "run", "[" * 50], REFUSED, "no such file"),
        (["predict", "run", "/dev/zero"], REFUSED, "/dev/zero"),
        (["predict", "run", "photo.png", "--threshold", "nan"], REFUSED, "--threshold"),
        (["predict", "run", "photo.png", "--threshold", "-1"], REFUSED, "--threshold"),
        (["predict", "run", "photo.png", "--output", "photo.png"], REFUSED, "photo.png"),
        (["predict", "run", "photo.png", "--output", "photo.png/x"], REFUSED, "photo.png"),
        (["predict", "run", "photo.png", "--output", LONG], REFUSED, "--output|too long"),
        (["predict", "run", "photo.png", "--output", "/proc/x"], REFUSED, "/proc/x"),
        (["predict", "run", "photo.png", "--output", "out"], FINE, ""),
        (["predict", "run"], REFUSED, "SOURCES is missing"),
        (["predict", "nowhere", "photo.png"], REFUSED, "nowhere"),
        (["predict", "photo.png", "photo.png"], REFUSED, "photo.png"),
        (["predict", "data", "photo.png"], REFUSED, "data: has no"),
        (["predict", LONG, "photo.png"], REFUSED, "."),
        (["evaluate", "run", "--data", "nowhere"], REFUSED, "nowhere"),
        (["evaluate", "run", "--data", "data", "--split", "test"], REFUSED, "test"),
        (["evaluate", "run", "--data", "data", "--image-size", "100000000"], REFUSED,
         "--image-size"),
        (["evaluate", "run", "--data", "data", "--batch-size", "0"], REFUSED, "--batch-size"),
        (["evaluate", "run", "--data", "data", "--workers", "1000000"], REFUSED, "--workers"),
        (["evaluate", "run", "--data", LONG], REFUSED, "."),
        (["convert", "nowhere.pth"], REFUSED, "nowhere.pth"),
        (["convert", "photo.png"], REFUSED, "photo.png"),
        (["convert", "data"], REFUSED, "data"),
        (["convert", LONG], REFUSED, "."),
        (["convert", "run", "--to", "huggingface", "--output", "photo.png"], REFUSED,
         "photo.png|transformers|hidden_dim"),
        (["convert", "run/best/model.safetensors", "--num-classes", "1000000000000"], REFUSED,
         "--num-classes|already"),
        (["reproduce", "table99", "--output", "out"], REFUSED, "table99"),
        (["benchmark", "nothing"], REFUSED, "nothing"),
        (["demo", "--output", "photo.png"], REFUSED, "photo.png"),
    ]  # fmt: skip
    train = ["train", "--data", "data", *flags(), "--output"]
    rows += [
        ([*train, place], REFUSED, place) for place in ("/proc/run", "/dev/null/run", "/sys/run")
    ]
    return [
        Case("commands", shown(words), nothing, command(*words), expected, names)
        for words, expected, names in rows
    ]
