"""Many small tensors as one vector: the bits of one after the other, however they are grouped."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain.formats.fixed import FixedPoint
from qtrain.formats.noise import Stream
from qtrain.layers import NumberPlan, flat, quantize
from qtrain.layers.emulated import stored_format
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.models import build

FORMATS = [FixedPoint(8), FixedPoint(16), stored_format("e4m3", 8)]
SIZES = st.lists(st.integers(1, 40), max_size=12)


@given(SIZES, st.integers(1, 60))
def test_groups_keep_the_order_and_the_limit(sizes: list[int], limit: int) -> None:
    names = [str(i) for i in range(len(sizes))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "GROUP", limit)
        groups = flat.grouped(names, sizes)
    assert [name for group in groups for name in group] == names
    held = [sum(sizes[int(name)] for name in group) for group in groups]
    assert all(n <= limit or len(group) == 1 for n, group in zip(held, groups, strict=True))
    assert all(n + sizes[int(after[0])] > limit for n, after in zip(held, groups[1:], strict=False))  # none too early


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7)), min_size=1, max_size=5), st.data())
def test_rounded_together_as_one_by_one(shapes: list[tuple[int, int]], data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    parts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    same = data.draw(st.booleans())
    targets = [
        flat.Target(
            FixedPoint(8) if same else data.draw(st.sampled_from(FORMATS)),
            "stochastic" if same else data.draw(st.sampled_from(["stochastic", "nearest-even"])),
            data.draw(st.integers(-9, -2)), Stream(1, 2, i),
        )
        for i in range(len(parts))
    ]  # fmt: skip
    sizes = [part.shape for part in parts]
    got = flat.parted(flat.round_joined(flat.joined(parts), sizes, targets), sizes)
    for part, target, one in zip(parts, targets, got, strict=True):
        assert torch.equal(one, flat._stored(part, target))
    assert flat.magnitudes(flat.joined(parts), sizes) == [float(part.abs().max()) for part in parts]


def test_an_update_does_not_depend_on_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps with momentum, the second without a gradient for one layer, whose velocity then waits."""

    def weights(limit: int) -> list[torch.Tensor]:
        monkeypatch.setattr(flat, "GROUP", limit)
        net = quantize(build("lenet5"), (1, 28, 28), NumberPlan.fixed(bits=8))
        optimizer = FixedSGD(net, 0.05, 0.9, 1e-4)
        monkeypatch.setattr(optimizer, "_compiled", lambda *_: set())
        generator = torch.Generator().manual_seed(3)
        for step in range(3):
            for i, parameter in enumerate(optimizer.parameters.values()):
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = None if step == 1 and i == 2 else gradient
            optimizer.step(Clock(0, step))
        return [p.detach().clone() for p in optimizer.parameters.values()]

    together, apart = weights(1 << 20), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))
