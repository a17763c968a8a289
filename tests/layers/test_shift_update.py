"""The update by shifts: codes minus shifted codes, whatever the exponents."""

import pytest
import torch
from torch import nn

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.layers import quantize
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.layers.shift import power
from qtrain.training.setup import number_plan

NITI8 = Experiment().with_options({"numbers.plan": "niti8"})


@pytest.mark.parametrize(("rate", "e"), [(1.0, 0), (0.75, 0), (0.74, -1), (0.02, -6), (0.0235, -5), (2.0**-9, -9)])
def test_the_power_of_two_nearest_to_a_rate(rate: float, e: int) -> None:
    """0.02 lies between 2^-6 = 0.015625 and 2^-5 = 0.03125, whose middle is 0.0234375."""
    assert power(rate) == e


def updated(master: list[float], gradient: list[float], rate: float, **options: object) -> list[float]:
    torch.manual_seed(0)
    layer = nn.Linear(len(master), 1, bias=False)
    layer.weight.data = torch.tensor([master])
    plan = number_plan(NITI8.with_options({"numbers.update_rounding": "nearest-even", **options}))
    optimizer = FixedSGD(quantize(nn.Sequential(nn.Flatten(), layer), (1, 1, len(master)), plan), rate)
    layer.weight.grad = torch.tensor([gradient])
    optimizer.step(Clock(0, 0), 1 / 64)
    (e,) = optimizer.exponents.values()
    return (layer.weight.detach() * 2.0**-e).flatten().tolist()


def test_by_hand() -> None:
    """Room for twice 0.5 puts 8-bit masters on 2^-6: codes 32, 8, -16. A gradient of 3 has codes of at most 127 on
    2^-5: 96, 32, 0. A rate of 2^-4 moves the codes by 6, 2, 0; a gradient 2^-20 as large moves them as far."""
    master = [0.5, 0.125, -0.25]
    assert updated(master, [3.0, 1.0, 0.0], 2.0**-4) == [26.0, 6.0, -16.0]
    assert updated(master, [3 * 2.0**-20, 2.0**-20, 0.0], 2.0**-4) == [26.0, 6.0, -16.0]
    assert updated(master, [0.0, 0.0, 0.0], 2.0**-4) == [32.0, 8.0, -16.0]


def test_masters_saturate_where_they_are() -> None:
    assert updated([0.5, 0.125], [-3.0, 3.0], 1.0) == [127.0, -88.0]  # 32 + 96, 8 - 96


def test_wider_masters_move_by_the_same_share_of_their_range() -> None:
    """16 bits: 0.5 lies on 2^-14 as 8192; a shift of -4 + 16 - 8 takes 96 x 2^4 = 1536."""
    assert updated([0.5, 0.125], [3.0, 0.0], 2.0**-4, **{"numbers.master_bits": 16}) == [6656.0, 2048.0]


def test_a_run_of_shifts_has_neither_momentum_nor_decay() -> None:
    assert (NITI8.optimizer.momentum, NITI8.optimizer.weight_decay, NITI8.filter.momentum) == (0.0, 0.0, 0.0)
    assert Experiment.from_toml(NITI8.to_toml()) == NITI8
    for key in ("optimizer.momentum", "optimizer.weight_decay", "filter.momentum"):
        with pytest.raises(QtrainError, match="'shift': has no"):
            Experiment().with_options({"numbers.plan": "niti8", key: 0.5})


def test_a_plan_left_takes_its_choices_along() -> None:
    assert NITI8.numbers.master_bits == 8
    assert NITI8.with_options({"numbers.plan": "fixed"}).numbers == Experiment().numbers
    assert Experiment().with_options({"numbers.plan": "niti8", "numbers.master_bits": 16}).numbers.master_bits == 16
    assert NITI8.bits(6).numbers.update == "shift"
