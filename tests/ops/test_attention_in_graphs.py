"""Deformable attention inside of compiled and exported graphs."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import config
from torch import nn

from od_detr.ops import attention_backend, cpu, deformable_attention, deformable_sampling, sampling
from od_detr.ops.reference import reference_attention

pytestmark = pytest.mark.slow

SHAPES = ((4, 5), (2, 3))


@pytest.fixture(autouse=True)
def _without_type_checks():
    """Graphs cannot hold the checks that the tests put around every function."""
    config.update("jaxtyping_disable", True)
    torch.compiler.reset()
    yield
    torch.compiler.reset()
    config.update("jaxtyping_disable", False)


def graph_inputs(batch: int = 2):
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(batch, 26, 2, 4, generator=generator)
    locations = torch.rand(batch, 3, 2, 2, 2, 2, generator=generator) * 1.4 - 0.2
    weights = torch.rand(batch, 3, 2, 2, 2, generator=generator)
    return value, locations, weights


class Attention(nn.Module):
    def forward(self, value, locations, weights):
        return deformable_attention(value.sin(), SHAPES, locations, weights).cos()


def expected(value, locations, weights):
    return reference_attention(value.sin(), SHAPES, locations, weights).cos()


class Sampling(nn.Module):
    def forward(self, value, anchors, offsets, logits):
        return deformable_sampling(value.sin(), SHAPES, anchors, offsets, logits).cos()


every_backend = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            "cpu",
            marks=pytest.mark.skipif(not cpu.available("cpu", torch.float32), reason="no compiler"),
        ),
        "torch",
        "reference",
    ],
)


@every_backend
def test_sampling_compiles_without_a_graph_break_and_changes_nothing(backend):
    value, offsets, logits = graph_inputs()
    anchors = torch.rand(2, 3, 2, 4, generator=torch.Generator().manual_seed(1))
    leaves = [tensor.requires_grad_() for tensor in (value, anchors, offsets, logits)]
    with attention_backend(backend):
        output = torch.compile(Sampling(), fullgraph=True, backend="aot_eager")(*leaves)
        grads = torch.autograd.grad(output.sum(), leaves)
    plain = sampling.composition(leaves[0].sin(), SHAPES, *leaves[1:]).cos()
    torch.testing.assert_close(output, plain)
    for ours, theirs in zip(grads, torch.autograd.grad(plain.sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@every_backend
def test_compilation_never_breaks_the_graph_and_changes_nothing(backend):
    leaves = [tensor.requires_grad_() for tensor in graph_inputs()]
    with attention_backend(backend):
        output = torch.compile(Attention(), fullgraph=True, backend="aot_eager")(*leaves)
        grads = torch.autograd.grad(output.sum(), leaves)
    plain = expected(*leaves)
    torch.testing.assert_close(output, plain)
    for ours, theirs in zip(grads, torch.autograd.grad(plain.sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_exported_graph_holds_only_standard_operators_and_gives_the_same_values(tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    inputs = graph_inputs()
    file = tmp_path / "attention.onnx"
    batch = torch.export.Dim("batch", min=1, max=16)
    torch.onnx.export(
        Attention().eval(),
        inputs,
        file,
        input_names=["value", "locations", "weights"],
        opset_version=18,
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
        verbose=False,
    )
    assert {node.domain for node in onnx.load(file).graph.node} == {""}
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for images in (2, 3):
        value, locations, weights = graph_inputs(images)
        feed = {"value": value.numpy(), "locations": locations.numpy(), "weights": weights.numpy()}
        (output,) = session.run(None, feed)
        torch.testing.assert_close(
            torch.from_numpy(output), expected(value, locations, weights), rtol=0, atol=1e-5
        )
