"""Small networks and data that the proofs run on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Batches = list[tuple[Tensor, Tensor]]


class EveryLayer(nn.Module):
    """One of each kind of layer, with strides, groups, one-sided padding, overlapping pools and ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.first = nn.Conv2d(2, 6, 3, stride=2, bias=False)
        self.first_norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 6, (3, 1), padding=(2, 0), dilation=(2, 1), groups=2)
        self.max_pool = nn.MaxPool2d(3, 1, 1)
        self.average = nn.AvgPool2d(2, 1)
        self.wide = nn.Conv2d(6, 9, 1)
        self.last = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first_norm(self.first(self.pad(x))))
        y = nn.functional.relu6(self.depthwise_norm(self.depthwise(x)))
        x = torch.relu(x + y)
        x = self.average(self.max_pool(torch.relu(self.grouped(x)) + x))
        x = torch.relu(self.wide(x)).mean((2, 3))
        return self.last(x)


class Chain(nn.Module):
    """No normalization, no pooling but one by a power of two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.pool = nn.AvgPool2d(2)
        self.hidden = nn.Linear(45, 8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv(x))).flatten(1)
        return self.last(torch.relu(self.hidden(x)))


def batches(n_steps: int = 3, n: int = 5, size: int = 8, seed: int = 0) -> Batches:
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 2, size, size, generator=g), torch.randint(0, 4, (n,), generator=g)) for _ in range(n_steps)
    ]


def seeded(make: type[nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
