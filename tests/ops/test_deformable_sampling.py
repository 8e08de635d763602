"""Laws of deformable sampling: fused kernels against a composition of PyTorch's operators."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from od_detr.ops import attention_backend, cpu, deformable_sampling, sampling

PYRAMID = ((5, 7), (3, 4), (2, 2))
needs_compiler = pytest.mark.skipif(
    not cpu.available("cpu", torch.float32), reason="no C++ compiler"
)
NAN, INF = float("nan"), float("inf")


def sampling_inputs(
    batch=2,
    shapes=PYRAMID,
    queries=11,
    heads=2,
    channels=12,
    points=3,
    coordinates=4,
    dtype=torch.float64,
    seed=0,
):
    """Every third box has no extent, every seventh none along one axis."""
    generator = torch.Generator().manual_seed(seed)
    levels, tokens = len(shapes), sum(height * width for height, width in shapes)

    def normal(*sizes):
        return torch.randn(*sizes, generator=generator, dtype=dtype)

    anchors = torch.rand(batch, queries, levels, coordinates, generator=generator, dtype=dtype)
    anchors[:, ::3, :, 2:] = 0
    anchors[:, ::7, :, 2:3] = 0
    offsets, logits = (
        normal(batch, queries, heads, levels, points, 2),
        normal(batch, queries, heads, levels, points),
    )
    return [normal(batch, tokens, heads, channels), shapes, anchors, offsets * 2, logits * 3]


def reference(*inputs):
    with attention_backend("reference"):
        return sampling.composition(*inputs)


def fused(*inputs):
    with attention_backend("cpu"):
        return deformable_sampling(*inputs)


def output_and_gradients(function, inputs):
    leaves = [part.detach().requires_grad_() if torch.is_tensor(part) else part for part in inputs]
    output = function(*leaves)
    direction = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    output.backward(direction.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves if torch.is_tensor(leaf))]


def to(dtype, inputs):
    return [part.to(dtype) if torch.is_tensor(part) else part for part in inputs]


SIZES = {
    "batch": st.integers(1, 3),
    "shapes": st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4).map(
        tuple
    ),
    "queries": st.integers(1, 18),
    "heads": st.integers(1, 3),
    "channels": st.sampled_from([1, 4, 8, 12, 16, 17, 24, 32, 40, 64]),
    "points": st.integers(1, 4),
    "coordinates": st.sampled_from([2, 4]),
    "seed": st.integers(0, 1000),
}


@pytest.mark.slow
@needs_compiler
@settings(max_examples=60, deadline=None)
@given(**SIZES)
def test_fused_sampling_is_the_composition_in_values_and_all_gradients(**sizes):
    inputs = sampling_inputs(**sizes)
    for ours, theirs in zip(
        output_and_gradients(fused, inputs), output_and_gradients(reference, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@needs_compiler
@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("channels", [3, 8, 12, 16, 20, 24, 32, 48, 64])
def test_fused_sampling_is_as_precise_as_float32_allows(channels, coordinates):
    single = to(torch.float32, sampling_inputs(channels=channels, coordinates=coordinates))
    exact = output_and_gradients(reference, to(torch.float64, single))
    for ours, theirs in zip(output_and_gradients(fused, single), exact, strict=True):
        torch.testing.assert_close(
            ours.double(), theirs, rtol=1e-5, atol=4e-6 * float(theirs.abs().max())
        )


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("coordinates", [2, 4])
def test_gradients_are_the_derivatives_of_the_values(coordinates):
    value, shapes, *rest = sampling_inputs(
        batch=1, shapes=((3, 4), (2, 2)), queries=3, channels=3, points=2, coordinates=2
    )
    if coordinates == 4:  # an extent of exactly zero has no derivative
        rest[0] = torch.cat([rest[0], rest[0] * 0.5 + 0.1], -1)
    leaves = [tensor.requires_grad_() for tensor in (value, *rest)]
    assert torch.autograd.gradcheck(lambda v, *others: fused(v, shapes, *others), leaves)


@needs_compiler
def test_an_extreme_softmax_is_pytorch_s():
    inputs = sampling_inputs(dtype=torch.float32)
    logits = inputs[-1]
    logits[0, 0] = 1e30
    logits[0, 1] *= 1e4
    logits[0, 2] -= 1e4
    logits[0, 3, :, 1] = -INF
    logits[0, 4] *= 20
    logits[1, 0] = 0
    torch.testing.assert_close(fused(*inputs), reference(*inputs), rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("place", [1e30, -1e30, 1e5, -1e5])
def test_far_outside_counts_nothing(place):
    inputs = sampling_inputs(dtype=torch.float32)
    inputs[3][..., 0] = place
    inputs[2][..., 2] = 0
    output, grad_value, _, grad_offsets, grad_logits = output_and_gradients(fused, inputs)
    for tensor in (output, grad_value, grad_offsets, grad_logits):
        assert not tensor.any()


@needs_compiler
@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
@pytest.mark.parametrize("argument", [2, 3, 4])
def test_what_is_no_number_spoils_its_own_query_and_no_other(argument, wrong):
    inputs = sampling_inputs(dtype=torch.float32)
    expected = reference(*inputs)
    inputs[argument][1, 3, 1] = wrong  # of a level of an anchor, or of a head
    output = fused(*inputs).unflatten(-1, (2, 12))
    expected = expected.unflatten(-1, (2, 12))
    assert output[1, 3, 1].isnan().all()
    output[1, 3], expected[1, 3] = 0, 0
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("heads", [1, 4])
def test_two_runs_and_any_number_of_threads_are_bit_equal(heads):
    inputs = sampling_inputs(
        1, ((16, 16), (8, 8)), queries=1001, heads=heads, channels=12, dtype=torch.float32
    )
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (2, 2, 1, 3):
            torch.set_num_threads(threads)
            runs.append(output_and_gradients(fused, inputs))
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(first, other)
        for run in runs[1:]
        for first, other in zip(runs[0], run, strict=True)
    )


@needs_compiler
def test_without_gradient_the_values_are_the_same():
    inputs = [
        part.requires_grad_() if torch.is_tensor(part) else part for part in sampling_inputs()
    ]
    with torch.no_grad():
        blind = fused(*inputs)
    assert not blind.requires_grad
    assert torch.equal(blind, fused(*inputs))


@needs_compiler
def test_inputs_may_be_strided_and_queries_absent():
    value, shapes, *rest = sampling_inputs()
    strided = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in (value, *rest)]
    assert torch.equal(fused(strided[0], shapes, *strided[1:]), fused(value, shapes, *rest))
    output, grad_value, *_ = output_and_gradients(
        fused, [value, shapes, *(tensor[:, :0] for tensor in rest)]
    )
    assert output.shape == (2, 0, 24)
    assert not grad_value.any()


@pytest.mark.parametrize(
    "backend", [pytest.param("cpu", marks=needs_compiler), "torch", "reference"]
)
def test_only_the_values_are_rounded_to_half_precision(backend):
    value, shapes, *rest = to(torch.float32, sampling_inputs())
    with attention_backend(backend), torch.autocast("cpu", dtype=torch.bfloat16):
        ours = output_and_gradients(deformable_sampling, [value.bfloat16(), shapes, *rest])
    expected = output_and_gradients(reference, [value.bfloat16().float(), shapes, *rest])
    assert [tensor.dtype for tensor in ours] == [torch.bfloat16] * 2 + [torch.float32] * 3
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(
            mine.float(), theirs, rtol=2e-2, atol=2e-2 * float(theirs.abs().max())
        )


@pytest.mark.slow
@needs_compiler
def test_the_operator_keeps_pytorch_s_contract():
    value, shapes, *rest = sampling_inputs(queries=3, channels=4)
    sizes = [size for shape in shapes for size in shape]
    leaves = [tensor.requires_grad_() for tensor in (value, *rest)]
    torch.library.opcheck(torch.ops.od_detr.deformable_sampling, (leaves[0], sizes, *leaves[1:]))
    strangers = [tensor.detach() for tensor in leaves]
    grad_output = torch.ones(2, 3, 8, dtype=torch.float64)
    for needs_anchors in (True, False):
        arguments = (grad_output, strangers[0], sizes, *strangers[1:], needs_anchors)
        torch.library.opcheck(torch.ops.od_detr.deformable_sampling_backward, arguments)


@needs_compiler
def test_nothing_but_the_arguments_is_kept_for_the_backward():
    inputs = [
        part.requires_grad_() if torch.is_tensor(part) else part
        for part in sampling_inputs(dtype=torch.float32)
    ]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.data_ptr()), lambda _: None
    ):
        fused(*inputs)
    assert set(kept) == {part.data_ptr() for part in inputs if torch.is_tensor(part)}


@pytest.mark.parametrize(
    "backend", [pytest.param("cpu", marks=needs_compiler), "torch", "reference"]
)
def test_arguments_that_do_not_fit_are_refused(backend):
    value, shapes, anchors, offsets, logits = sampling_inputs()
    unchecked = inspect.unwrap(deformable_sampling)  # by the type checker of the tests
    wrong = [
        (value[:, 1:], shapes, anchors, offsets, logits),
        (value, shapes[:2], anchors, offsets, logits),
        (value, shapes, anchors[..., :3], offsets, logits),
        (value, shapes, anchors[:, 1:], offsets, logits),
        (value, shapes, anchors[:, :, :1], offsets, logits),
        (value, shapes, anchors, offsets, logits[:, 1:]),
    ]
    for arguments in wrong:
        with (
            attention_backend(backend),
            pytest.raises(ValueError, match=r"value has|every level|need shape"),
        ):
            unchecked(*arguments)
