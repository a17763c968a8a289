"""Layers, error maps and tapes to prune."""

from types import SimpleNamespace

import pytest
import torch

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.quantizer import Clock
from qtrain.layers.tape import Tape


def conv(name="conv", channels=8, inputs=4, groups=1, activation="none", kind="conv", size=4,
         normalized=False):  # fmt: skip
    return Layer(name, kind, ("input",), inputs, size, size, channels, size, size, 3, 3, groups=groups,
                 activation=activation, normalized=normalized)  # fmt: skip


def tape(step=0, seed=0, rows=None, averaged=False):
    return Tape(Clock(seed, step), rows, averaged=averaged)


def codes(*shape, seed=0, bits=8, exponent=-9, sparse=0.0):
    """An error map of normal numbers on a grid: codes x 2^exponent; a share `sparse` of it is zero."""
    generator = torch.Generator().manual_seed(seed)
    limit = 2 ** (bits - 1) - 1
    values = (torch.randn(shape, generator=generator) * limit / 4).round().clamp(-limit, limit)
    values = values * (torch.rand(shape, generator=generator) >= sparse)
    return FixedTensor(values * 2.0**exponent, exponent)


@pytest.fixture(scope="session")
def lab():
    return SimpleNamespace(conv=conv, tape=tape, codes=codes)
