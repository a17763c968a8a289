"""The cheapest change that makes a step fit, on networks small enough to check by hand."""

from __future__ import annotations

import pytest

from hwmodel.memory import peak
from hwmodel.memory_cure import cure
from hwmodel.network import Network
from hwmodel.operations import Layer, Widths
from hwmodel.schedule import Schedule


def chain() -> Network:
    """2x4x4 image, 3x3 conv with ReLU to 3 channels, linear to 5 classes, loss; its peak is derived in test_memory."""
    return Network(
        "chain",
        (
            Layer("input", "input", (), 2, 4, 4, 2, 4, 4),
            Layer("conv", "conv", ("input",), 2, 4, 4, 3, 4, 4, 3, 3, bias=True, activation="relu"),
            Layer("fc", "linear", ("conv",), 48, 1, 1, 5, 1, 1, bias=True),
            Layer("loss", "loss", ("fc",), 5, 1, 1, 1, 1, 1),
        ),
    )


def deep() -> Network:
    """Two linear layers, 64 to 32 and 32 to 32."""
    return Network(
        "deep",
        (
            Layer("input", "input", (), 64, 1, 1, 64, 1, 1),
            Layer("one", "linear", ("input",), 64, 1, 1, 32, 1, 1),
            Layer("two", "linear", ("one",), 32, 1, 1, 32, 1, 1),
            Layer("loss", "loss", ("two",), 32, 1, 1, 1, 1, 1),
        ),
    )


def test_cure_fuses_the_update_first():
    plain = Schedule(deep(), Widths())
    needed = peak(plain, 1)
    # the second layer's gradient waits while the first one's is accumulated
    assert needed.peak_moment == "gradient one"
    found = cure(plain, 1, needed.peak_ram_bytes - 1)
    assert (found.change, found.peak_ram_bytes) == ("fused update", needed.peak_ram_bytes - 32 * 32)


@pytest.mark.parametrize(
    ("limit", "change"),
    [
        (2_014, "no change"),
        (2_013, "batch 1"),  # fc's gradient is the peak: fusing does not lower it; one instance less does by 85
        (1_900, "4 bits"),
        (1_600, "train from fc on"),  # 490 of master, 106 of conv's output and logits, 980 of accumulators
        (1, "fused update, batch 1 and train from fc on"),
    ],
)
def test_cure_names_the_cheapest_change(limit: int, change: str):
    found = cure(Schedule(chain(), Widths()), 2, limit)
    assert change in found.change
    assert found.fits == (limit > 1)
    assert found.fits == (found.peak_ram_bytes <= limit)
    assert f"{found.peak_ram_bytes:,} bytes" in str(found)
