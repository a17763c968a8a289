"""Predictions against published measurements that entered no calibration, as markdown.

Run: python benchmarks/published.py > benchmarks/results/published.md
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from torch import Tensor, nn

from hwmodel import devices, network
from hwmodel.network import Network
from hwmodel.operations import Widths
from hwmodel.pricing import price
from hwmodel.schedule import Schedule, inference
from qtrain.models.shapes import traced

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, repeats, stride."""
HEAD = """# Published measurements that entered no calibration

Command: `python benchmarks/published.py > benchmarks/results/published.md`
"""
INFERENCE = """
MobileNetV2, width 0.30, 80x80, 1000 classes, int8, on the STM32F746 at 216 MHz (Plumerai, "The world's fastest deep
learning inference software for Arm Cortex-M", 4 October 2021). No row of this board or network was fitted.

| engine | kernels | measured | predicted | error |
|---|---|---:|---:|---:|"""
TRAINING = """
A training step on one sample, PULP cluster of 8 cores, in products per cycle (Nadalini et al. 2023, arXiv 2305.19167,
abstract). Theirs is float16, which this model does not have: expected between the two predictions for gap9.

| network | measured, float16 | predicted, int16 | predicted, float32 |
|---|---:|---:|---:|"""


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out),
        ]  # fmt: skip
        self.body, self.skips = nn.Sequential(*layers), stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skips else self.body(x)


def mobilenet_v2(width: float = 0.30, n_classes: int = 1000) -> nn.Module:
    """MobileNetV2 for 80x80 images."""
    channels = multiple_of_8(32 * width)
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU6()]
    for expansion, n, repeats, stride in BLOCKS:
        for i in range(repeats):
            out = multiple_of_8(n * width)
            layers.append(Block(channels, out, 1 if i else stride, expansion))
            channels = out
    layers += [nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6(), nn.AvgPool2d(3)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1280, n_classes))
    model.n_classes, model.input_shape = n_classes, (3, 80, 80)  # type: ignore[assignment]
    return model


def multiple_of_8(n: float) -> int:
    """The nearest multiple of 8, no more than a tenth below."""
    near = max(8, int(n + 4) // 8 * 8)
    return near + 8 if near < 0.9 * n else near


def main() -> None:
    """Two tables."""
    print(HEAD + INFERENCE)
    net: Network = traced("published:mobilenet_v2", "3,80,80")
    board = devices.load("stm32f746")
    for engine, kernels, measured in (
        ("TensorFlow Lite Micro 2.5 with CMSIS-NN", "cmsis-nn-2022", 129),
        ("X-CUBE-AI", "x-cube-ai-7", 103),
    ):
        found = price(inference(net, Widths()), board, scope="inference", kernels=kernels).time_s * 1e3
        print(f"| {engine} | {kernels} | {measured} ms | {found:.0f} ms | {found / measured - 1:+.0%} |")
    print(TRAINING)
    for name, rate in (("resnet8", 3.11), ("dscnn", 0.81)):
        folded = network.load(name).normalized_by(lambda _: "folded")
        rates = []
        for bits in (16, 32):
            bill = price(Schedule(folded, Widths.uniform(bits)).step(1), devices.load("gap9"))
            macs = sum(bill.by_phase[phase].macs for phase in ("forward", "error", "gradient"))
            rates.append(macs / bill.cycles)
        print(f"| {name} | {rate} | {rates[0]:.2f} | {rates[1]:.2f} |")
    print("\ndscnn is missed: even float32 is predicted faster than the published float16. Not resolved; its depthwise")
    print("products reuse no operand, while the profile's float product is counted for blocks of a matrix product.")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
