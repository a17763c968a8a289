"""However a run is carried out, it gives the same bits. (benchmarks/same_bits.py shows it on larger networks.)"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import same_bits
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.loss import cross_entropy
from tests.reference.networks import Chain, batches, seeded


def test_threads_layouts_gathered_channels_engines_and_a_resume_change_nothing(tmp_path: Path) -> None:
    """Losses, final weights and trace of a filtered and pruned run."""
    experiment = same_bits.described("digits-cnn", 4, 8, 8, 0)
    found = same_bits.variants(experiment, tmp_path, 0)
    assert len(found) >= 7
    assert len({tuple(own.items()) for own in found.values()}) == 1, found


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_stopped_after_any_step_ends_in_the_same_weights(seed: int, tmp_path: Path) -> None:
    experiment = same_bits.described("digits-cnn", 9, 8, 4, seed)
    plain = same_bits.carried_out(experiment, tmp_path / "plain")
    for after in (1 + seed, 8 - 2 * seed):
        assert same_bits.interrupted(experiment, tmp_path / f"stopped{after}", after) == plain


def gradients(net: QuantizedNetwork, x: Tensor, labels: Tensor, rows: Tensor, *, gathered: bool) -> dict[str, Tensor]:
    """Of the loss of the instances `rows`: of these alone, or of all with the others' error set to zero."""
    logits, tape = net.run(x[rows], rows=rows) if gathered else net.run(x)
    _, error, _ = cross_entropy(logits, labels[rows] if gathered else labels)
    if not gathered:
        dropped = torch.ones(len(x), dtype=torch.bool).index_fill_(0, rows, False)
        error[dropped] = 0.0
    net.run_back(tape, net.logit_error(error, tape))
    return {name: p.grad for name, p in net.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_kept_instances_gathered_or_masked(bits: int) -> None:
    """With held exponents (static: the dropped instances teach no maximum) and stochastic rounding: an instance's noise
    is that of its place in the whole batch, and zeros add nothing to an exact sum."""
    ((x, labels),) = batches(1, 7)
    found = []
    for gathered in (True, False):
        net = quantize(seeded(Chain), (2, 8, 8), NumberPlan.fixed(bits, scale="static"))
        gradients(net, x, labels, torch.arange(7), gathered=False)  # sets the exponents
        net.model.zero_grad()
        net.step = 1
        found.append(gradients(net, x, labels, torch.tensor([1, 2, 5]), gathered=gathered))
    assert len(found[0]) == 6
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0
        assert torch.equal(gradient, found[1][name]), name
