"""Saved detectors, checkpoints and their configurations that are wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.hostile.harness import FINE, REFUSED, WARNED, Case, command
from tests.hostile.material import flags, nothing, written

from od_detr.checkpoints import load_checkpoint, save_checkpoint
from od_detr.run_files import CONFIG_HEAD, RunFiles

WEIGHTS, CONFIG, LAST = "run/best/model.safetensors", "run/best/config.json", "run/last.ckpt"
PREVIOUS = "run/previous.ckpt"
HEAD = "decoder.heads.classes.0.weight"
predict = command("predict", "run", "photo.png", "--output", "out")
online = command("predict", "run", "photo.png", "--output", "out", "--weights", "online")
init = command(
    "train", "--data", "data", "--output", "out", "--init", "run", "--dry-run", "--image-size", "32"
)
convert = command("convert", "other.pth", "--output", "out")
resume = command(
    "train", "--data", "data", "--output", "run", "--resume", "--dry-run", *flags(epochs=2)
)
backbone = command(
    "train",
    "--data",
    "data",
    "--output",
    "out",
    "--dry-run",
    *flags(backbone_weights="own.safetensors"),
)


# ---- files that are not weights at all -----------------------------------------------------------


class Runs:
    """A pickle that runs a command when it is read."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def torch_file(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def repacked(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The same PyTorch file with its entries compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return zip_of({name: archive.read(name) for name in archive.namelist()}, method)


def tar_bytes() -> bytes:
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO(b""))
    return file.getvalue()


def foreign() -> dict[str, bytes]:
    """Files that people take for weights, and some that are made to harm."""
    touch = Runs(os.system, "touch canary")
    run = Runs(exec, "open('canary', 'w')")
    tensors = {"model": {"a": torch.zeros(3)}}
    bomb = torch_file({"a": torch.zeros(30_000_000, dtype=torch.uint8)})
    return {
        "empty": b"",
        "one byte": b"\x80",
        "zeros": b"\0" * 4096,
        "random bytes": bytes(range(256)) * 16,
        "text": b"these are not weights\n" * 10,
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "a web page": b"<!DOCTYPE html><html>Not found</html>",
        "JSON": b'{"message": "Not Found"}',
        "gzip": b"\x1f\x8b\x08\0" + b"\0" * 64,
        "7z": b"7z\xbc\xaf\x27\x1c" + b"\0" * 64,
        "tar": tar_bytes(),
        "HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 64,
        "GGUF": b"GGUF" + b"\0" * 64,
        "ONNX": b"\x08\x07\x12\x07pytorch" + b"\0" * 64,
        "numpy": b"\x93NUMPY\x01\0" + b"\0" * 64,
        "an empty zip": zip_of({}),
        "a zip of something else": zip_of({"word/document.xml": b"<w/>"}),
        "a zip with a path that climbs out": zip_of({"../../escaped": b"x", "data.pkl": b"."}),
        "a zip bomb": repacked(bomb),
        "a zip whose pickle is a bomb": repacked(zip_of({"archive/data.pkl": b"\0" * 50_000_000,
            "archive/version": b"3"})),
        "a half zip": torch_file(tensors)[:200],
        "a zip without its end": torch_file(tensors)[:-30],
        "a pickle": pickle.dumps({"model": {}}),
        "a pickle that runs a program": pickle.dumps(touch),
        "a pickle that runs Python": pickle.dumps(run),
        "a checkpoint that runs a program": torch_file({"model": touch}),
        "a checkpoint that runs Python": torch_file({"model": run}),
        "an old checkpoint that runs a program": torch_file(touch,
            _use_new_zipfile_serialization=False),
        "a checkpoint that imports": torch_file({"model": Runs(__import__, "this")}),
        "a checkpoint with getattr": torch_file({"model": Runs(getattr, "text", "upper")}),
        "a whole module": torch_file(torch.nn.Linear(2, 2)),
        "a list": torch_file([1, 2]),
        "a tensor": torch_file(torch.zeros(3)),
        "nothing": torch_file({}),
        "texts": torch_file({"model": {"a": "b"}}),
        "a sparse tensor out of bounds": torch_file(
            {"model": {"a": torch.sparse_coo_tensor(torch.tensor([[9]]), torch.ones(1), (3,),
                check_invariants=False)}}
        ),
    }  # fmt: skip


def other_format_cases() -> list[Case]:
    files = foreign()
    rows: list[tuple[str, str, str, Callable[[Path], list[str]]]] = [
        ("as best weights", WEIGHTS, r"model\.safetensors", predict),
        ("as last.ckpt", LAST, r"last\.ckpt", online),
        ("as a checkpoint to convert", "other.pth", r"other\.pth", convert),
    ]
    cases = [
        Case("other formats", f"{kind} {role}", alone(written(content, name)), use, REFUSED, names)
        for kind, content in files.items()
        for role, name, names, use in rows
    ]
    some = ("a Git LFS pointer", "a zip bomb", "a checkpoint that runs a program", "zeros", "empty")
    cases += [
        Case("other formats", f"{kind} as backbone weights",
            written(files[kind], "own.safetensors"), backbone, REFUSED, r"own\.safetensors")
        for kind in some
    ]  # fmt: skip
    return cases + [
        Case("other formats", f"{kind} to resume", alone(written(files[kind], LAST)), resume,
            REFUSED, r"last\.ckpt")
        for kind in (*some, "a zip without its end", "texts", "a list")
    ]  # fmt: skip


# ---- safetensors ---------------------------------------------------------------------------------


def header(content: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return spoil


def set_value(value: float) -> Callable[[Path], object]:
    return tensors(lambda weights: weights[HEAD].view(-1).__setitem__(0, value))


def flipped(folder: Path, name: str = WEIGHTS, place: float = 0.5) -> None:
    """One bit is another: nothing in the format shows it."""
    file = folder / name
    content = bytearray(file.read_bytes())
    content[int(len(content) * place)] ^= 1
    file.write_bytes(bytes(content))


def shortened(folder: Path, name: str = WEIGHTS, share: float = 0.5) -> None:
    file = folder / name
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


def removed(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def as_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def safetensors_cases() -> list[Case]:
    one = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    entry, data = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', b"\0\0\0\0"
    whole = {
        "header longer than the file": header(one, data, 10**6),
        "header of 2^63 bytes": header(one, data, 2**63),
        "header of 2^64 - 1 bytes": header(one, data, 2**64 - 1),
        "header of no bytes": header(b"", b"", 0),
        "header that is not JSON": header(b"{]", data),
        "header that is a list": header([], data),
        "header of deep lists": header(b"{" + b'"a":' + b"[" * 100_000, data),
        "header with a name twice": header(b"{%b,%b}" % (entry, entry), data),
        "unknown type": header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, data),
        "shape beyond the data": header({"a": {"dtype": "F32", "shape": [10**12],
            "data_offsets": [0, 4]}}, data),
        "shape that overflows": header({"a": {"dtype": "F32", "shape": [2**40, 2**40],
            "data_offsets": [0, 4]}}, data),
        "negative shape": header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
            data),
        "offsets beyond the data": header({"a": {"dtype": "F32", "shape": [2],
            "data_offsets": [4, 12]}}, data),
        "offsets that overlap": header(one | {"b": {"dtype": "F32", "shape": [1],
            "data_offsets": [0, 4]}}, data),
        "no tensors": header({}),
        "only metadata": header({"__metadata__": {"a": "b"}}),
        "bytes at the end": header(one, data + b"more"),
        "other tensors": header(one, data),
        "a name of a million letters": header({"a" * 10**6: one["a"]}, data),
    }  # fmt: skip
    best = r"model\.safetensors"
    named = rf"{best}.*{HEAD}"
    rows: list[tuple[str, Callable[[Path], object], str]] = [
        *((name, written(content, WEIGHTS), best) for name, content in whole.items()),
        ("NaN", set_value(float("nan")), named),
        ("infinity", set_value(float("inf")), named),
        ("a tensor missing", tensors(lambda w: w.pop(HEAD)), named),
        ("a tensor too many", tensors(lambda w: w.update(extra=torch.zeros(2))), rf"{best}.*extra"),
        ("another shape", tensors(lambda w: w.update({HEAD: w[HEAD][:1].clone()})), named),
        ("half precision", tensors(lambda w: w.update({HEAD: w[HEAD].half()})), named),
        ("double precision", tensors(lambda w: w.update({HEAD: w[HEAD].double()})), named),
        ("whole numbers", tensors(lambda w: w.update({HEAD: w[HEAD].int()})), named),
        ("one flipped bit", flipped, best),
        ("one flipped bit near the end", partial(flipped, place=0.99), best),
        ("cut in the middle", shortened, best),
        ("cut by one byte", lambda folder: shortened(folder, WEIGHTS, 0.99999), best),
        ("not there", lambda folder: removed(folder, WEIGHTS), best),
        ("a folder of that name", lambda folder: as_folder(folder, WEIGHTS), best),
    ]
    return [
        Case("weights", f"{name}, {what}", spoil, use, REFUSED, names)
        for name, spoil, names in rows
        for what, use in (("predict", predict),)
    ] + [
        Case("weights", f"{name}, train --init", spoil, init, REFUSED, names)
        for name, spoil, names in rows
        if name in ("NaN", "half precision", "one flipped bit", "header of 2^63 bytes", "not there")
    ]


# ---- config.json ---------------------------------------------------------------------------------


def settings(**values: Any) -> Callable[[Path], object]:
    return config(lambda content: content["detector"].update(values))


def facts(**values: Any) -> Callable[[Path], object]:
    return config(lambda content: content.update(values))


def config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        file = folder / CONFIG
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def config_cases() -> list[Case]:
    hostile_backbone = {
        "reads a file": {"checkpoint_path": "extra.pth"},
        "fetches an address": {"pretrained_cfg": {"url": "http://127.0.0.1:9/x"}},
        "overlays a configuration": {"pretrained_cfg_overlay": {"file": "/etc/passwd"}},
        "is pretrained": {"pretrained": True},
        "names a cache": {"cache_dir": "/tmp"},
        "has a layer by name": {"act_layer": "torch.nn.ReLU"},
        "has 10^9 channels": {"channels": [10**9] * 4},
        "has 8192 channels and 64 layers": {"channels": [8192] * 4, "layers": [64] * 4},
        "is a text": "channels",
        "is a list": [1],
    }
    texts: dict[str, str | bytes] = {
        "empty": "",
        "no JSON": "{",
        "a list": "[]",
        "deep lists": "[" * 100_000,
        "deep objects": '{"a":' * 100_000,
        "NaN for a number": '{"detector": NaN}',
        "nothing in it": "{}",
        "not UTF-8": b"\xff\xfe\0",
        "20 MB of blanks": " " * 20_000_000 + "{}",
        "a Git LFS pointer": "version https://git-lfs.github.com/spec/v1\n",
    }
    rows: list[tuple[str, Callable[[Path], object], str]] = [
        *((f"is {name}", written(text, CONFIG), "") for name, text in texts.items()),
        *((f"backbone {name}", settings(backbone_options=value), "") for name,
            value in hostile_backbone.items()),
        ("has no detector", config(lambda c: c.pop("detector")), "detector"),
        ("a detector that is a list", facts(detector=[]), "detector"),
        ("an unknown model", settings(model="yolo"), "yolo"),
        ("a model that is a list", settings(model=["dino-4scale"]), "model"),
        ("an unknown setting", settings(tentacles=8), "tentacles"),
        ("another model of the package", settings(model="dino-4scale"), ""),
        ("a backbone from the hub", settings(backbone="hf-hub:someone/backdoor"), "hf-hub"),
        ("a backbone from a folder", settings(backbone="local-dir:/etc"), "local-dir"),
        ("an unknown backbone", settings(backbone="resnet19"), "resnet19"),
        ("a backbone that is a path", settings(backbone="../../etc/passwd"), "backbone"),
        ("a backbone that is null", settings(backbone=None), "backbone"),
        ("another backbone", settings(backbone="resnet34", backbone_options=None), ""),
        ("10^12 classes", settings(num_classes=10**12), "num_classes|classes"),
        ("no classes", settings(num_classes=0), "num_classes|classes"),
        ("classes that are a text", settings(num_classes="2"), "num_classes"),
        ("10^9 queries", settings(queries=10**9), "queries"),
        ("a width of 10^6", settings(hidden_dim=10**6), "hidden_dim"),
        ("a width of -8", settings(hidden_dim=-8), "hidden_dim"),
        ("a width of 16.0", settings(hidden_dim=16.0), "hidden_dim"),
        ("a width of true", settings(hidden_dim=True), "hidden_dim"),
        ("3 heads", settings(heads=3), "heads"),
        ("4 heads, which fit the weights", settings(heads=4), "heads"),
        ("2 points in place of 4", settings(points=2), "points"),
        ("no heads", settings(heads=0), "heads"),
        ("10^6 layers", settings(decoder_layers=10**6), "decoder_layers"),
        ("8192 wide, 65536 feedforward, 100 layers",
         settings(hidden_dim=8192, feedforward=65536, encoder_layers=100), "parameters|hidden_dim"),
        ("dropout of 7", settings(dropout=7), "dropout"),
        ("dropout NaN", settings(dropout=float("nan")), "dropout"),
        ("strides that are none", settings(strides=[]), ""),
        ("strides of 7", settings(strides=[7, 13]), ""),
        ("strides of a million", settings(strides=[8] * 10**6), ""),
        ("top_k 0", settings(top_k=0), "top_k"),
        ("no class names", config(lambda c: c.pop("classes")), "classes"),
        ("class names that are numbers", facts(classes=[1, 2]), "classes"),
        ("one class name too few", facts(classes=["cat"]), "classes"),
        ("one category id too few", facts(category_ids=[7]), "category_ids"),
        ("category ids that are texts", facts(category_ids=["7", "90"]), "category_ids"),
        ("a category id twice", facts(category_ids=[7, 7]), "category_ids"),
        ("category ids of 30 digits", facts(category_ids=[10**30, 10**31]), "category_ids"),
        ("image size 0", facts(image_size=0), "image_size"),
        ("image size 10^9", facts(image_size=10**9), "image_size"),
        ("image size a text", facts(image_size="800"), "image_size"),
        ("image size NaN", facts(image_size=float("nan")), "image_size"),
    ]  # fmt: skip
    return [
        Case("config.json", name, spoil, predict, REFUSED, rf"best.*({names})")
        for name, spoil, names in rows
    ] + [
        Case("config.json", name, spoil, predict, FINE)
        for name, spoil in (
            ("facts that nobody knows", facts(mine=[1])),
            ("two classes of one name", facts(classes=["cat", "cat"])),
            ("is not there: the weights carry it", lambda folder: removed(folder, CONFIG)),
            ("is a folder: the weights carry it", lambda folder: as_folder(folder, CONFIG)),
        )
    ]


# ---- last.ckpt -----------------------------------------------------------------------------------


def checkpoint(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Changes what was saved, and signs it again. No older checkpoint is left."""

    def spoil(folder: Path) -> None:
        files = RunFiles(folder / "run")
        content = load_checkpoint(files).contents
        change(content)
        save_checkpoint(content, files)
        files.previous.unlink()

    return spoil


def alone(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Damages `last.ckpt` where there is no older one."""

    def spoil(folder: Path) -> None:
        (folder / PREVIOUS).unlink()
        damage(folder)

    return spoil


def run_state(**values: Any) -> Callable[[Path], object]:
    return checkpoint(lambda content: content["run"].update(values))


def checkpoint_cases() -> list[Case]:
    weight = f"detector.{HEAD}"

    def poison(content: dict[str, Any]) -> None:
        content["state_dict"][weight].view(-1)[0] = float("nan")

    def half(content: dict[str, Any]) -> None:
        content["state_dict"][weight] = content["state_dict"][weight].half()

    def moments(content: dict[str, Any]) -> None:
        content["optimizer"]["state"][0]["exp_avg"].fill_(float("inf"))

    keys = ("state_dict", "optimizer", "schedule", "scaler", "global_step", "run")
    rows: list[tuple[str, Callable[[Path], object]]] = [
        *((f"{key} missing", checkpoint(popped(key))) for key in keys),
        *((f"{key} is a text", checkpoint(replaced(key))) for key in keys),
        ("a weight missing", checkpoint(lambda c: c["state_dict"].pop(weight))),
        ("a weight too many", checkpoint(lambda c: c["state_dict"].update(extra=torch.zeros(1)))),
        ("a weight that is NaN", checkpoint(poison)),
        ("a weight of half precision", checkpoint(half)),
        ("a weight of another shape",
         checkpoint(lambda c: c["state_dict"].update({weight: torch.zeros(1, 16)}))),
        ("a moment that is infinite", checkpoint(moments)),
        ("no moments", checkpoint(lambda c: c["optimizer"].update(state={}))),
        ("epoch missing", checkpoint(lambda c: c["run"].pop("epoch"))),
        ("epoch a text", run_state(epoch="1")),
        ("epoch negative", run_state(epoch=-1)),
        ("batch negative", run_state(batch=-1)),
        ("rows that are a text", run_state(rows="many")),
        ("guard missing", checkpoint(lambda c: c["run"].pop("guard"))),
        ("steps of an epoch another number", run_state(steps_per_epoch=17)),
        ("cut in the middle", alone(partial(shortened, name=LAST))),
        ("cut by a few bytes", alone(partial(shortened, name=LAST, share=0.9999))),
        ("one flipped bit", alone(partial(flipped, name=LAST))),
        ("one flipped bit in the beginning", alone(partial(flipped, name=LAST, place=0.01))),
        ("a folder of that name", alone(partial(as_folder, name=LAST))),
    ]  # fmt: skip
    cases = [Case("last.ckpt", name, spoil, resume, REFUSED, r"last\.ckpt") for name, spoil in rows]
    yaml = "run/config.yaml"
    cases += [
        Case("last.ckpt", f"{name}, with previous.ckpt", damage, resume, WARNED,
            r"last\.ckpt.*previous\.ckpt")
        for name, damage in (
            ("cut in the middle", partial(shortened, name=LAST)),
            ("one flipped bit", partial(flipped, name=LAST)),
            ("another file", written(b"no checkpoint", LAST)),
        )
    ]  # fmt: skip
    cases.append(
        Case(
            "last.ckpt",
            "both generations flipped",
            both_flipped,
            resume,
            REFUSED,
            r"last\.ckpt.*previous\.ckpt",
        )
    )
    cases += [
        Case("last.ckpt", "config.yaml with one option left: the command line has the rest",
            written(CONFIG_HEAD + "epochs: 1\n", yaml), resume, FINE),
        Case("last.ckpt", "config.yaml empty", written("", yaml), resume, REFUSED, r"config\.yaml"),
        Case("last.ckpt", "config.yaml runs Python",
            written("# x\nepochs: !!python/object/apply:os.system ['touch canary']", yaml),
            resume, REFUSED, r"config\.yaml"),
        Case("last.ckpt", "config.yaml with an anchor", written("a: &a [*a]", yaml), resume,
            REFUSED, r"config\.yaml"),
        Case("last.ckpt", "best not there", lambda folder: removed(folder, WEIGHTS, CONFIG), resume,
            FINE),
        Case("last.ckpt", "nothing wrong", nothing, resume, FINE),
        Case("last.ckpt", "nothing wrong, predict", nothing, online, FINE),
    ]  # fmt: skip
    return cases


def both_flipped(folder: Path) -> None:
    for name in (LAST, PREVIOUS):
        flipped(folder, name)


def popped(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(key)


def replaced(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update({key: "text"})


def weight_cases() -> list[Case]:
    return [*other_format_cases(), *safetensors_cases(), *config_cases(), *checkpoint_cases()]
