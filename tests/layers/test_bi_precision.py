"""The plan banner8: errors kept in float32, rounded only on their way to the input error."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hwmodel.operations import Op
from hwmodel.trace import Trace
from qtrain.experiment import Experiment
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.pruners.channel import ChannelPruning
from qtrain.simulate import simulate_experiment
from qtrain.training.setup import number_plan
from qtrain.verification import verify

BANNER8 = Experiment(model="digits-cnn").with_options({"numbers.plan": "banner8"})
FINE = {f"numbers.{role}_format": "float32" for role in ("weight", "activation", "gradient", "master", "momentum")}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)).mean((2, 3)))


def network(plan: NumberPlan, keep: float = 1.0) -> QuantizedNetwork:
    torch.manual_seed(0)
    return quantize(Two(), (2, 5, 5), plan, ChannelPruning(keep=keep))


def gradients(plan: NumberPlan, keep: float = 1.0) -> dict[str, Tensor]:
    net = network(plan, keep)
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    logits, tape = net.run(x)
    _, error, _ = cross_entropy(logits, torch.arange(6) % 3)
    net.run_back(tape, net.logit_error(error, tape))
    return {name: p.grad for name, p in net.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_only_the_input_error_is_made_of_rounded_errors(keep: float) -> None:
    """With three bits for the error sent on, the last layer learns from the whole error, the first from a worse one."""
    sent = Experiment().with_options({**FINE, "numbers.error_format": "int-affine", "numbers.error_bits": 3})
    coarse = gradients(number_plan(sent.with_options({"numbers.bi_precision": True})), keep)
    whole = gradients(number_plan(sent.with_options({"numbers.error_format": "float32"})), keep)
    assert torch.equal(coarse["last.weight"], whole["last.weight"])
    assert torch.equal(coarse["last.bias"], whole["last.bias"])
    assert not torch.equal(coarse["first.weight"], whole["first.weight"])
    single = gradients(number_plan(sent), keep)
    assert not torch.equal(single["last.weight"], whole["last.weight"])


def test_priced_with_errors_of_8_bits_one_way_and_32_the_other() -> None:
    """Bit operations: 8 x 8 for the input error, 32 x 8 for the weight gradient; errors lie in memory at 32."""
    net = network(number_plan(BANNER8))
    (last,) = (layer for layer in net.network.layers if layer.name == "last")
    schedule = net.schedule()
    assert schedule.widths.stored_error_bits == 32

    def bitops(phase: str) -> int:
        op: Op = schedule.op(last, phase, batch=5)
        rounded = op.n_requantized * op.widths.accumulator_bits
        return Trace.of([op]).bit_operations() - rounded

    assert last.macs == 4 * 3
    assert bitops("error") == 5 * 12 * 8 * 8
    assert bitops("gradient") == 5 * 12 * 32 * 8


def test_it_learns_and_its_record_says_that_nothing_proves_it(tmp_path: Path) -> None:
    experiment = BANNER8.with_options({
        "filter.kind": "none", "prune.kind": "none", "train.epochs": 3, "run.out": str(tmp_path / "run"),
    })  # fmt: skip
    result = simulate_experiment(experiment)
    assert result["accuracy"] > 0.8  # ten classes: a tenth by chance
    assert result["not_verifiable"] == "its weight gradient is not quantized"
    numbers = json.loads((tmp_path / "run" / "numbers.json").read_text())
    assert "float32 gradient" in numbers["not_exact"]["conv1"]
    text = (tmp_path / "run" / "experiment.toml").read_text()
    assert 'activation_format = "int-affine"' in text
    assert 'norm = "range"' in text


def test_verify_says_so_in_a_line() -> None:
    report = verify(BANNER8)
    assert not report["verifiable"]
    assert report["reason"] == "its weight gradient is not quantized"
