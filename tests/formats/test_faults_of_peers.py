"""Faults measured in other libraries, each of which must not happen here: a table of the tests that would see them, and
those tests that have no other place."""

import ast
import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from qtrain.formats.fixed import FixedPoint
from qtrain.formats.noise import Stream
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock

TESTS = Path(__file__).parent.parent
FAULTS = {
    "stochastic rounding moves values on the grid (QPyTorch, 16 bits: 0.2 %)": (
        "formats/test_faults_of_peers.py::test_grid_values_survive_stochastic_rounding_at_sixteen_bits",
        "formats/test_every_format.py::test_every_level_stays_under_every_rounding",
    ),
    "float and block formats ignore the seed (QPyTorch)": (
        "formats/test_every_format.py::test_stochastic_rounding_is_unbiased_mirrored_and_seeded",
        "formats/test_noise.py::test_the_global_generator_has_no_part_in_it",
    ),
    "stochastic rounding is asymmetric under sign (NITI: -5/4 averages -2.75)": (
        "formats/test_fixed.py::test_stochastic_rounding_is_symmetric_under_sign",
        "formats/test_every_format.py::test_stochastic_rounding_is_unbiased_mirrored_and_seeded",
    ),
    "257 levels at 8 bits (nics_fix)": (
        "formats/test_fixed.py::test_at_most_two_to_the_bits_levels_and_none_outside_the_range",
        "formats/test_every_format.py::test_at_most_two_to_the_bits_levels",
    ),
    "identical noise in all layers (Brevitas)": (
        "formats/test_faults_of_peers.py::test_every_point_of_a_network_has_noise_of_its_own",
        "formats/test_noise.py::test_streams_differ_by_seed_step_and_stream",
    ),
    "a gradient format of its own is ignored by convolutions (microxcaling)": (
        "formats/test_faults_of_peers.py::test_a_gradient_width_of_its_own_is_obeyed_by_convolutions",
        "reference/test_roles.py::test_any_rules_everywhere_and_in_the_first_and_last_layers",
    ),
    "a resume from disk changes the noise": (
        "formats/test_faults_of_peers.py::test_going_on_from_a_saved_state_draws_the_same_noise",
        "reference/test_same_bits.py::test_a_run_stopped_after_any_step_ends_in_the_same_weights",
    ),
    "half away from zero where half to even is claimed": ("formats/test_fixed.py::test_halves",),
    "an absolute maximum of 1.0 saturates by a code (Brevitas)": (
        "formats/test_fixed.py::test_an_amax_of_one_does_not_saturate",
    ),
    "integer products silently wrong on some machines (torch._int_mm, oneDNN capped to AVX2)": (
        "reference/test_verify.py::test_this_machine_convolves_exactly",
        "reference/test_verify.py::test_a_machine_that_does_not_gets_float64_everywhere",
    ),
    "sums that wrap without a word (conv2d on int8)": (
        "reference/test_accumulators.py::test_overflows_of_all_three_passes_are_counted_alike_by_both_sides",
    ),
}


@pytest.mark.parametrize("named", FAULTS.values(), ids=FAULTS.keys())
def test_every_fault_has_its_tests(named: tuple[str, ...]) -> None:
    for test in named:
        path, _, function = test.partition("::")
        tree = ast.parse((TESTS / path).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def network(plan: NumberPlan) -> tuple[QuantizedNetwork, FixedSGD]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(64, 3),
        )  # fmt: skip
    net = quantize(model, (1, 8, 8), plan)
    return net, FixedSGD(net, 0.1, 0.9)


def gradients(net: QuantizedNetwork, step: int) -> dict[str, torch.Tensor]:
    """Gradients of one fixed batch; they stay in `.grad`."""
    g = torch.Generator().manual_seed(step)
    net.step = step
    logits, tape = net.run(torch.randn(6, 1, 8, 8, generator=g))
    _, error, _ = cross_entropy(logits, torch.arange(6) % 3)
    net.run_back(tape, net.logit_error(error, tape))
    return {name: p.grad for name, p in net.model.named_parameters() if p.grad is not None}


def test_grid_values_survive_stochastic_rounding_at_sixteen_bits() -> None:
    """QPyTorch moves 0.2 % of them."""
    codes = torch.arange(-(2**15) + 1, 2**15, dtype=torch.float32)
    for step in range(50):
        assert torch.equal(FixedPoint(16).quantize(codes * 2.0**-9, -9, "stochastic", Stream(0, step, 1)), codes / 512)


def test_every_point_of_a_network_has_noise_of_its_own() -> None:
    """Brevitas gives every layer a generator of the same seed."""
    net, _ = network(NumberPlan.fixed(8))
    ids = [point.stream_id for point in net.quantizers().values()]
    assert len(ids) == len(set(ids)) > 15


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_a_gradient_width_of_its_own_is_obeyed_by_convolutions(bits: int) -> None:
    """microxcaling ignores it there. 2^b - 1 codes at most, and more than that at 8 bits."""
    plan = NumberPlan.fixed(8, layers={"*": {"gradient_bits": bits}})
    narrow, wide = gradients(network(plan)[0], 0), gradients(network(NumberPlan.fixed(8))[0], 0)
    for name in ("0.weight", "3.weight", "6.weight"):
        assert len(narrow[name].unique()) <= 2**bits - 1
        assert len(wide[name].unique()) > len(narrow[name].unique())


@pytest.mark.parametrize("stop", [1, 2])
def test_going_on_from_a_saved_state_draws_the_same_noise(stop: int) -> None:
    plan = NumberPlan.fixed(8, seed=5)
    straight, optimizer = network(plan)
    for step in range(3):
        gradients(straight, step)
        optimizer.step(Clock(5, step), 1 / 6)
    first, optimizer = network(plan)
    for step in range(stop):
        gradients(first, step)
        optimizer.step(Clock(5, step), 1 / 6)
    saved = copy.deepcopy(
        (first.model.state_dict(), first.numbers_state(), optimizer.state(), optimizer.tensors())
    )  # fmt: skip
    second, optimizer = network(plan)
    second.model.load_state_dict(saved[0])
    second.load_numbers_state(saved[1])
    optimizer.load(saved[2], saved[3])
    torch.manual_seed(99)  # a restarted process has another generator
    for step in range(stop, 3):
        gradients(second, step)
        optimizer.step(Clock(5, step), 1 / 6)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_threads_and_memory_format_change_no_bit(threads: int, layout: torch.memory_format) -> None:
    reference, optimizer = network(NumberPlan.fixed(8))
    for step in range(2):
        gradients(reference, step)
        optimizer.step(Clock(0, step), 1 / 6)
    other, optimizer = network(NumberPlan.fixed(8))
    other.memory_format = layout
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for step in range(2):
            gradients(other, step)
            optimizer.step(Clock(0, step), 1 / 6)
    finally:
        torch.set_num_threads(before)
    for name, value in reference.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
