"""Numerics health: shares and decibels recomputed from the definition."""

import math
from collections import deque

import pytest
import torch

from qtrain.formats.fixed import FixedPoint
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.quantizer import Clock, Quantizer
from qtrain.models import build
from qtrain.training.health import NumericsHealth


def test_shares_and_noise_by_hand() -> None:
    """4 signed bits on a static exponent 0: codes -7..7. Of (0.2, 0.4, 3, 9): 0.2 and 0.4 flush, 9 saturates to 7."""
    point = Quantizer(FixedPoint(4), "nearest-even", "static", 0, "layer.error")
    point.amax = 7.0
    point.monitor = deque()
    point(torch.tensor([0.2, 0.4, 3.0, 9.0]), Clock(0, 0))
    (seen,) = point.monitor
    assert seen["saturated"] == 1 / 4
    assert seen["zeroed"] == 2 / 4
    assert seen["noise"] == pytest.approx(0.2**2 + 0.4**2 + 2.0**2, rel=1e-6)
    assert seen["signal"] == pytest.approx(0.2**2 + 0.4**2 + 3.0**2 + 9.0**2, rel=1e-6)


def test_report_and_warning() -> None:
    net = quantize(build("digits-cnn"), (1, 8, 8), NumberPlan.fixed(8), name="digits-cnn")
    health = NumericsHealth(net)
    name = next(iter(net.quantizers()))
    look = {"saturated": 0.0, "zeroed": 0.5, "signal": 1.0, "exponent": -3}
    health.rows[name] = [{"step": 0, "noise": 1.0, **look}, {"step": 5, "noise": 0.5, **look}]
    (row,) = health.report()
    assert row["sqnr_db"] == pytest.approx(10 * math.log10(2.0 / 1.5))
    assert row["exponents"] == [[0, -3], [5, -3]]
    (line,) = health.warnings()
    assert "50 % flushed to zero" in line
    assert "8 bits: try 10" in line
    net.accumulators()["conv2"].overflows["error"] = 3
    net.accumulators()["conv2"].needed_bits["error"] = 35
    said = "conv2 error: sums overflow the 32-bit accumulator (wrap): try --accumulator-bits 35"
    assert health.collect(6) == [said]
    assert said not in health.warnings()  # once
    fresh = NumericsHealth(net)
    fresh.load_state(health.state())
    assert fresh.report() == health.report()
