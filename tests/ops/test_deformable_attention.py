"""Laws of multi-scale deformable attention, held by every backend."""

from __future__ import annotations

import inspect
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from od_detr.errors import InputError
from od_detr.ops import attention_backend, cpu, deformable_attention, eager, selected_backend
from od_detr.ops.reference import reference_attention

needs_compiler = pytest.mark.skipif(
    not cpu.available("cpu", torch.float32), reason="no C++ compiler"
)
BACKENDS = [pytest.param("cpu", marks=needs_compiler), "torch", "reference"]
PYRAMID = ((5, 7), (3, 4), (2, 2))


def attention_inputs(
    batch=2, shapes=PYRAMID, queries=6, heads=2, channels=8, points=3, dtype=torch.float64, seed=0
):
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(height * width for height, width in shapes)
    value = torch.randn(batch, tokens, heads, channels, generator=generator, dtype=dtype)
    locations = (
        torch.rand(batch, queries, heads, len(shapes), points, 2, generator=generator, dtype=dtype)
        * 2
        - 0.5
    )
    weights = torch.randn(
        batch, queries, heads, len(shapes), points, generator=generator, dtype=dtype
    )
    return value, shapes, locations, weights


def output_and_gradients(function, value, shapes, locations, weights):
    value, locations, weights = (
        tensor.detach().requires_grad_() for tensor in (value, locations, weights)
    )
    output = function(value, shapes, locations, weights)
    direction = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    output.backward(direction.to(output.dtype))
    return [output.detach(), value.grad, locations.grad, weights.grad]


def with_backend(name):
    def function(*inputs):
        with attention_backend(name):
            return deformable_attention(*inputs)

    return function


FUNCTIONS = [
    pytest.param(with_backend("cpu"), id="cpu", marks=needs_compiler),
    pytest.param(with_backend("torch"), id="torch"),
    *(
        pytest.param(form, id=form.__name__)
        for form in (eager.accumulated, eager.bagged, eager.gathered)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4).map(
        tuple
    ),
    queries=st.integers(1, 9),
    heads=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 4, 5, 8, 12, 17, 40]),
    points=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_every_backend_equals_the_reference_in_values_and_gradients(function, seed, **sizes):
    inputs = attention_inputs(**sizes, seed=seed)
    for ours, theirs in zip(
        output_and_gradients(function, *inputs),
        output_and_gradients(reference_attention, *inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@needs_compiler
@pytest.mark.parametrize("channels", [3, 8, 12, 16, 20, 24, 32, 48, 64])
def test_every_width_of_the_fused_kernels_is_as_precise_as_float32_allows(channels):
    inputs = attention_inputs(channels=channels)
    single = [part.float() if torch.is_tensor(part) else part for part in inputs]
    exact = [part.double() if torch.is_tensor(part) else part for part in single]
    for ours, theirs in zip(
        output_and_gradients(with_backend("cpu"), *single),
        output_and_gradients(reference_attention, *exact),
        strict=True,
    ):
        torch.testing.assert_close(
            ours.double(), theirs, rtol=1e-5, atol=2e-6 * float(theirs.abs().max())
        )


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_the_derivatives_of_the_values(backend):
    value, shapes, locations, weights = attention_inputs(queries=2, channels=3)
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    function = with_backend(backend)
    assert torch.autograd.gradcheck(lambda v, x, w: function(v, shapes, x, w), leaves)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_may_be_strided_and_queries_absent(backend):
    value, shapes, locations, weights = attention_inputs()
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (value, locations, weights)]
    function = with_backend(backend)
    expected = reference_attention(value, shapes, locations, weights)
    torch.testing.assert_close(
        function(strided[0], shapes, *strided[1:]), expected, rtol=0, atol=1e-12
    )
    assert function(value, shapes, locations[:, :0], weights[:, :0]).shape == (2, 0, 16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", [1e30, -1e30, 1e4, -1e4])
def test_far_outside_counts_nothing(backend, place):
    value, shapes, locations, weights = attention_inputs(dtype=torch.float32)
    locations[..., 0] = place
    output, grad_value, grad_locations, grad_weights = output_and_gradients(
        with_backend(backend), value, shapes, locations, weights
    )
    for tensor in (output, grad_value, grad_locations, grad_weights):
        assert not tensor.any()


@needs_compiler
@pytest.mark.parametrize("place", [float("nan"), float("inf"), -float("inf")])
def test_a_location_that_is_no_number_spoils_its_own_query_and_no_other(place):
    value, shapes, locations, weights = attention_inputs(dtype=torch.float32)
    expected = reference_attention(value, shapes, locations, weights)
    locations[1, 3, :, 1, 2, 1] = place
    output = output_and_gradients(with_backend("cpu"), value, shapes, locations, weights)[0]
    assert output[1, 3].isnan().all()
    output[1, 3] = expected[1, 3] = 0
    torch.testing.assert_close(output, expected)


@needs_compiler
def test_two_runs_and_any_number_of_threads_are_bit_equal():
    inputs = attention_inputs(
        shapes=((16, 16), (8, 8)), queries=320, heads=4, channels=12, dtype=torch.float32
    )
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (2, 2, 1):
            torch.set_num_threads(threads)
            runs.append(output_and_gradients(with_backend("cpu"), *inputs))
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(first, other)
        for run in runs[1:]
        for first, other in zip(runs[0], run, strict=True)
    )


@needs_compiler
def test_callers_in_several_threads_do_not_meet():
    inputs = [
        attention_inputs(queries=50, channels=16, dtype=torch.float32, seed=seed)
        for seed in range(8)
    ]
    alone = [output_and_gradients(cpu_attention, *each) for each in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda each: output_and_gradients(cpu_attention, *each), inputs * 5)
        )
    for index, outputs in enumerate(together):
        assert all(map(torch.equal, outputs, alone[index % 8]))


def cpu_attention(value, shapes, locations, weights):
    sizes = [size for shape in shapes for size in shape]
    return torch.ops.od_detr.deformable_attention(value, sizes, locations, weights, "cpu")


def _answer_in_child(inputs, queue):
    torch.set_num_threads(2)
    queue.put(cpu_attention(*inputs).tolist())


@needs_compiler
@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this platform"
)
def test_a_forked_child_computes_what_its_parent_does():
    inputs = attention_inputs(queries=40, heads=8, channels=32, points=4, dtype=torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = cpu_attention(*inputs)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_answer_in_child, args=(inputs, queue))
        child.start()
        answer = queue.get(timeout=30)
        child.join(timeout=30)
    finally:
        torch.set_num_threads(before)
    assert child.exitcode == 0
    assert torch.equal(torch.tensor(answer), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_values_and_never_the_locations(backend, half):
    value, shapes, locations, weights = attention_inputs(shapes=((64, 64),), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = output_and_gradients(
            with_backend(backend), value.to(half), shapes, locations, weights
        )
    rounded = value.to(half).float()
    expected = output_and_gradients(reference_attention, rounded, shapes, locations, weights)
    assert [t.dtype for t in ours] == [half, half, torch.float32, torch.float32]
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(
            mine.float(), theirs, rtol=2e-2, atol=2e-2 * float(theirs.abs().max())
        )


@pytest.mark.slow
@needs_compiler
def test_the_operator_keeps_pytorch_s_contract():
    value, shapes, locations, weights = attention_inputs(queries=3, channels=4)
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    sizes = [size for shape in shapes for size in shape]
    torch.library.opcheck(
        torch.ops.od_detr.deformable_attention, (leaves[0], sizes, *leaves[1:], "cpu")
    )
    strangers = [tensor.detach() for tensor in leaves]
    grad_output = torch.ones(2, 3, 8, dtype=torch.float64)
    torch.library.opcheck(
        torch.ops.od_detr.deformable_attention_backward,
        (grad_output, strangers[0], sizes, *strangers[1:], "cpu"),
    )


def bytes_saved(function, inputs) -> int:
    saved: dict[int, int] = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    value, shapes, locations, weights = inputs
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = function(
            value.requires_grad_(), shapes, locations.requires_grad_(), weights.requires_grad_()
        )
    assert output.requires_grad
    return sum(saved.values())


@needs_compiler
def test_an_encoder_saves_at_most_a_sixth_of_the_reference_s_bytes():
    shapes = ((20, 20), (10, 10), (5, 5), (3, 3))
    tokens = sum(height * width for height, width in shapes)
    inputs = attention_inputs(
        1, shapes, tokens, heads=8, channels=32, points=4, dtype=torch.float32
    )
    assert bytes_saved(with_backend("cpu"), inputs) * 6 <= bytes_saved(reference_attention, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_that_do_not_fit_are_refused(backend):
    value, shapes, locations, weights = attention_inputs()
    unchecked = inspect.unwrap(deformable_attention)  # by the type checker of the tests
    wrong = [
        (value[:, 1:], shapes, locations, weights),
        (value, shapes[:2], locations, weights),
        (value, ((5, 7), (4, 4), (0, 5)), locations, weights),
        (value, shapes, locations[:, :, :, :, :2], weights),
        (value, shapes, locations, weights[:, :-1]),
    ]
    for arguments in wrong:
        with (
            attention_backend(backend),
            pytest.raises(ValueError, match=r"value has|every level|locations and weights"),
        ):
            unchecked(*arguments)


def test_a_backend_that_cannot_run_is_named_with_the_mend():
    with (
        attention_backend("fastest"),
        pytest.raises(InputError, match="'fastest'; choose one of auto, reference"),
    ):
        selected_backend("cpu")
    with attention_backend("cpu"), pytest.raises(InputError, match="'cpu' cannot run on cuda"):
        selected_backend("cuda")
    assert selected_backend("cpu") == ("cpu" if cpu.available("cpu", torch.float32) else "torch")


def test_deterministic_algorithms_rule_out_atomic_additions_on_cuda():
    torch.use_deterministic_algorithms(True)
    try:
        assert selected_backend("cuda") == "torch"
    finally:
        torch.use_deterministic_algorithms(False)
