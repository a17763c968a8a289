"""An exported network computes what the simulator computes at inference."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qtrain import models
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.export import compare, export, write
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.export import exportable
from qtrain.layers.loss import cross_entropy
from qtrain.layers.norms.swap import exchange
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.simulate import simulate_experiment
from tests.interop.brevitas_networks import LeNet


class Residual(nn.Module):
    """Every kind of layer: normalization, ReLU6, depthwise and padded convolutions, additions, both poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.strided = nn.Conv2d(8, 16, 3, stride=2)
        self.pool = nn.MaxPool2d(2)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.norm(self.conv(x)))
        x = torch.relu(self.depthwise(x) + x)
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = torch.relu(self.strided(self.pad(x)) + shortcut)
        return self.fc(torch.flatten(self.mean(self.pool(x)), 1))


def _trained(model: nn.Module, shape: tuple[int, ...], bits: int, n: int = 4) -> tuple[QuantizedNetwork, Tensor]:
    """The network after two steps on made images, and others to test on."""
    torch.manual_seed(0)
    net = quantize(model, shape, NumberPlan.fixed(bits))
    sgd = FixedSGD(net, 0.01, 0.9)
    for net.step in range(2):
        logits, tape = net.run(torch.randn(n, *shape))
        _, error, scale = cross_entropy(logits, torch.arange(n) % logits.values.shape[1])
        net.run_back(tape, net.logit_error(error, tape))
        sgd.step(Clock(0, net.step), scale)
    return net, torch.randn(n, *shape) * 1.5


def _logits(net: QuantizedNetwork, images: Tensor) -> Tensor:
    return net.run(images, training=False, record=False)[0].values.float()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["lenet5", "resnet8", "resnet20", "mobilenetv1-0.25", "dscnn", "autoencoder"])
def test_the_rebuilt_network_gives_the_same_logits(name: str, bits: int) -> None:
    net, images = _trained(models.build(name), models.info(name).input_shape, bits, 2)
    with torch.no_grad():
        logits = exportable(net).eval()(images)
    assert logits.abs().max() > 0
    assert torch.equal(logits, _logits(net, images))


@pytest.mark.parametrize("norm", ["range", "frozen", "folded"])
def test_a_network_of_other_normalizations_gives_the_same_logits(norm: str) -> None:
    model, shape = models.build("resnet8"), models.info("resnet8").input_shape
    exchange(model, shape, lambda _: norm)
    net, images = _trained(model, shape, 8, 2)
    with torch.no_grad():
        logits = exportable(net).eval()(images)
    assert logits.abs().max() > 0
    assert torch.equal(logits, _logits(net, images))


def test_group_normalization_is_exported_with_float_statistics(tmp_path: Path) -> None:
    """Its integer statistics are good to 2^-8 of a code and roots to 2^-15: a stored code may move by one, here in at
    most one of twenty, and the logits by a few of 127."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    net, images = _trained(model, (2, 8, 8), 8, 20)
    write(exportable(net), (2, 8, 8), "qcdq", tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    logits, wanted = torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), _logits(net, images)
    step = float(wanted.abs().max()) / 64  # of a code at the least
    assert (logits - wanted).abs().max() <= 3 * step
    assert (logits != wanted).float().mean() <= 0.05


@pytest.mark.parametrize("fmt", ["qcdq", "qonnx"])
def test_the_file_gives_the_same_logits_in_its_runtime(fmt: str, tmp_path: Path) -> None:
    """The mean is over 2x2 values, the longest sum over 72 products of 8 bits: all of it is exact."""
    onnxruntime = pytest.importorskip("onnxruntime")
    net, images = _trained(Residual(), (2, 8, 8), 8)
    path = tmp_path / "model.onnx"
    write(exportable(net), (2, 8, 8), fmt, path)
    if fmt == "qcdq":
        session = onnxruntime.InferenceSession(str(path))
        logits = session.run(None, {"images": images.numpy()})[0]
        expected = _logits(net, images)
    else:
        wrapper = pytest.importorskip("qonnx.core.modelwrapper").ModelWrapper(str(path))
        execute = pytest.importorskip("qonnx.core.onnx_exec").execute_onnx
        logits = execute(wrapper, {"images": images[:1].numpy()})["logits"]
        expected = _logits(net, images[:1])
    assert torch.equal(torch.from_numpy(logits), expected)
    assert expected.unique().numel() > 2


def test_a_run_is_exported_and_agrees_on_the_test_set(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "run"
    options = {"train.steps": 12, "run.out": str(out), "filter.kind": "none", "prune.kind": "none"}
    simulate_experiment(Experiment().bits(8).with_options(options))
    path = export(out)
    assert path == out / "model.qcdq.onnx"
    found = compare(out, path)
    assert found.n_instances > 300
    assert found.n_same_predictions == found.n_same_logits == found.n_instances
    with pytest.raises(QtrainError, match="format 'tflite': must be one of qcdq, qonnx"):
        export(out, "tflite")
    (out / "result.json").unlink()
    with pytest.raises(QtrainError, match="not finished"):
        export(out)


@pytest.mark.parametrize(("bits", "message"), [(32, "float32, there is nothing"), (12, "at most 8 bits, the run 12")])
def test_what_cannot_be_exported_says_why(bits: int, message: str, tmp_path: Path) -> None:
    options = {"train.steps": 1, "run.out": str(tmp_path / "run"), "filter.kind": "none", "prune.kind": "none"}
    simulate_experiment(Experiment().bits(bits).with_options(options))
    with pytest.raises(QtrainError, match=message):
        export(tmp_path / "run")


def test_what_brevitas_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    """LeNet's own biases are quantized, which Brevitas' exporter does not take."""
    with pytest.raises(QtrainError, match=r"as qcdq: .* does not support quantized bias"):
        write(LeNet(), (3, 32, 32), "qcdq", tmp_path / "model.onnx")
