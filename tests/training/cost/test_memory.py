"""A full device is answered by options that need less, and every one of them is an option."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from od_detr.errors import FullMemoryError, InputError
from od_detr.options import MAY_CHANGE_ON_RESUME, TrainOptions, flag_name
from od_detr.training.cost.memory import advice, memory_explained, remedies

OPTIONS = TrainOptions(data="data", output="nowhere", batch_size=6, accumulate=2, image_size=800)


def test_running_out_of_memory_is_one_line_with_options_that_need_less() -> None:
    with pytest.raises(InputError) as told, memory_explained(OPTIONS):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB ...")
    line = str(told.value)
    assert "\n" not in line
    assert {"--batch-size", "--accumulate", "--image-size", "--checkpoint-encoder"} <= set(
        re.findall(r"--[\w-]+", line)
    )


def test_a_full_host_is_told_like_a_full_gpu() -> None:
    full = "memory is full; give --batch-size 3"
    with pytest.raises(InputError, match=full), memory_explained(OPTIONS):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(InputError, match="memory is full"), memory_explained(OPTIONS):
        raise MemoryError


@pytest.mark.parametrize("batch_size", [2, 6, 9, 16])
def test_the_smaller_batch_is_made_up_for(batch_size: int) -> None:
    text = advice(TrainOptions(data="", output="nowhere", batch_size=batch_size, accumulate=2))
    size, steps = map(int, re.findall(r"give --batch-size (\d+) --accumulate (\d+)", text)[0])
    assert size < batch_size
    assert size * steps == 2 * batch_size


def test_a_run_that_was_saved_is_told_only_what_may_change(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    line = advice(replace(OPTIONS, output=str(tmp_path)))
    assert line.endswith(f"; with --resume the run continues from {tmp_path / 'last.ckpt'}")
    shares = {"--batch-size", "--accumulate"}
    free = {f"--{flag_name(name)}" for name in MAY_CHANGE_ON_RESUME}
    assert set(re.findall(r"--[\w-]+", line)) <= shares | free


@pytest.mark.parametrize("excess", [1.1, 2.0, 3.5, 6.1, 40.0])
def test_each_way_suffices_by_itself(excess: float) -> None:
    options = TrainOptions(data="", output="nowhere", batch_size=16, image_size=3000)
    text = remedies(options, excess)
    shares = re.findall(r"--batch-size (\d+) --accumulate (\d+)", text)
    assert len(shares) == (excess <= 16)
    for size, steps in ((int(size), int(steps)) for size, steps in shares):
        assert size * steps == 16
        assert size <= 16 / excess
    (side,) = map(int, re.findall(r"--image-size (\d+)", text))
    assert (side / 3000) ** 2 <= 1 / excess
    assert ("--checkpoint-encoder" in text) == (excess <= 2)


def test_a_batch_of_one_cannot_be_smaller() -> None:
    assert "--accumulate" not in advice(TrainOptions(data="", output="nowhere", batch_size=1))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 8 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 4096 bytes.",
    ],
)
def test_every_device_says_it_in_its_own_words(words: str) -> None:
    with pytest.raises(FullMemoryError), memory_explained(OPTIONS):
        raise RuntimeError(words)


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="mine"), memory_explained(OPTIONS):
        raise ValueError("mine")


@pytest.mark.slow
def test_a_run_with_a_recomputed_encoder_is_the_same_run(
    options: Callable[..., TrainOptions], tmp_path
) -> None:
    from od_detr.training.fit import fit

    runs = [
        fit(options(output=str(tmp_path / name), epochs=1, dropout=0.1, checkpoint_encoder=chosen))
        for name, chosen in (("kept", False), ("again", True))
    ]
    first, second = ({k: v for k, v in run.rows[-1].items() if k != "seconds"} for run in runs)
    assert first == second
