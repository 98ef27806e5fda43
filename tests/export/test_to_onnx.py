"""Tracing: what the exporter does to a network that the rest of the export must not notice."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from export.fold import FoldedDeepViT
from export.graphs import Classifier
from export.half import half
from export.quantize import calibrate, quantize
from export.sessions import cpu_session
from export.to_onnx import trace
from export.verify import sample_images
from models.config import ARCHITECTURES
from models.deepvit import DeepViT
from models.preprocess import Preprocessing

CONFIG = ARCHITECTURES["deepvit_test"].config.model_copy(update={"reatten_blocks": ()})


@pytest.fixture(scope="module")
def network() -> DeepViT:
    """As initialised, for a trial of speed."""
    torch.manual_seed(0)
    network = DeepViT(CONFIG).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
    return network


@pytest.fixture(scope="module")
def traced(network: DeepViT) -> ir.Model:
    rule = Preprocessing(size=CONFIG.img_size)
    return trace(Classifier(FoldedDeepViT(network, rule)), CONFIG.img_size, ["logits"])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_biases_of_zeros_are_biases(precision: str, network: DeepViT, traced: ir.Model) -> None:
    """The exporter drops them."""
    model = traced
    assert {len(node.inputs) for node in model.graph if node.op_type == "Gemm"} == {3}
    images = sample_images(3, CONFIG.img_size)
    if precision == "fp16":
        model = half(model)
    if precision == "int8":
        model = quantize(model, calibrate(model, [images]))
    session = cpu_session(ir.to_proto(model).SerializeToString())
    (logits,) = session.run(["logits"], {"images": images})
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(logits, network(pixels).numpy(), atol=0.1)
