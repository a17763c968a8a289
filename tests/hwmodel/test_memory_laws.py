"""Laws of peak memory over random networks."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from hwmodel.memory import peak
from hwmodel.network import Network
from hwmodel.operations import Layer, Widths
from hwmodel.schedule import Schedule
from hwmodel.storage import Packing

BATCHES = st.integers(1, 6)
BITS = st.integers(2, 16)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A chain of one to four blocks on an 8x8 or 4x4 image, then a linear layer and the loss."""
    side, channels = draw(st.sampled_from([4, 8])), draw(st.integers(1, 3))
    layers = [Layer("input", "input", (), channels, side, side, channels, side, side)]

    def add(name: str, kind: str, inputs: tuple[str, ...], out: int, out_side: int, **more: object) -> str:
        nonlocal channels, side
        layers.append(
            Layer(name, kind, inputs, channels, side, side, out, out_side, out_side, **more)  # type: ignore[arg-type]
        )
        channels, side = out, out_side
        return name

    last = "input"
    for i in range(draw(st.integers(1, 4))):
        block = draw(st.sampled_from(["conv", "norm", "residual", "pool", "depthwise"]))
        kernel = draw(st.sampled_from([1, 3]))
        square = {"kernel_height": kernel, "kernel_width": kernel}
        if block == "residual":
            fork = add(f"fork{i}", "fork", (last,), channels, side)
            branch = add(f"conv{i}", "conv", (fork,), channels, side, **square)
            last = add(f"add{i}", "add", (branch, fork), channels, side, activation="relu")
        elif block == "pool" and side > 1:
            last = add(
                f"pool{i}", "maxpool", (last,), channels, side // 2,
                kernel_height=2, kernel_width=2, stride_height=2, stride_width=2,
            )  # fmt: skip
        elif block == "norm":
            out = draw(st.integers(1, 6))
            conv = add(f"conv{i}", "conv", (last,), out, side, normalized=True, **square)
            last = add(f"norm{i}", "batchnorm", (conv,), out, side, activation="relu")
        else:
            groups = channels if block == "depthwise" else 1
            out = channels if block == "depthwise" else draw(st.integers(1, 6))
            act = draw(st.sampled_from(["none", "relu"]))
            last = add(f"conv{i}", "conv", (last,), out, side, groups=groups, bias=True, activation=act, **square)
    channels, side = channels * side * side, 1
    last = add("fc", "linear", (last,), 4, 1, bias=True)
    layers.append(Layer("loss", "loss", (last,), 4, 1, 1, 1, 1, 1))
    return Network("random", tuple(layers))


def trained_names(network: Network) -> list[str]:
    return [layer.name for layer in network.layers if layer.n_parameters]


def schedules(network: Network, bits: int = 8, **changes: object) -> Schedule:
    return Schedule(network, Widths.uniform(bits), **changes)  # type: ignore[arg-type]


@given(networks(), BATCHES)
def test_peak_is_the_largest_moment_and_its_tenants_sum_to_it(network, batch):
    bill = peak(schedules(network), batch)
    assert bill.peak_ram_bytes == max(moment.n_bytes for moment in bill.timeline)
    assert bill.peak_ram_bytes == sum(tenant.n_bytes for tenant in bill.tenants)
    assert all(moment.n_bytes == sum(moment.by_role.values()) for moment in bill.timeline)


@given(networks(), BATCHES, BITS, BITS)
def test_fewer_bits_never_need_more(network, batch, one, other):
    few, many = sorted((one, other))
    peaks = [peak(schedules(network, bits), batch).peak_ram_bytes for bits in (few, many, 32)]
    assert peaks[0] <= peaks[1]
    if many <= 8:  # above, a layer's gradient is summed in 64 bits, where float32's sums are 32 wide
        assert peaks[1] <= peaks[2]


@given(networks(), BATCHES, BATCHES)
def test_more_instances_never_need_less(network, one, other):
    few, many = sorted((one, other))
    schedule = schedules(network)
    assert peak(schedule, few).peak_ram_bytes <= peak(schedule, many).peak_ram_bytes


@given(networks(), BATCHES, st.data())
def test_longer_frozen_prefix_never_needs_more_ram_nor_less_flash(network, batch, data):
    names = trained_names(network)
    n = data.draw(st.integers(0, len(names) - 1))
    shorter = peak(schedules(network, frozen=frozenset(names[:n])), batch)
    longer = peak(schedules(network, frozen=frozenset(names[: n + 1])), batch)
    assert longer.peak_ram_bytes <= shorter.peak_ram_bytes
    assert longer.flash_bytes > shorter.flash_bytes


@given(networks(), BATCHES, st.booleans())
def test_fused_update_never_needs_more(network, batch, momentum):
    plain = schedules(network, momentum=momentum)
    fused = dataclasses.replace(plain, fused_update=True)
    assert peak(fused, batch).peak_ram_bytes <= peak(plain, batch).peak_ram_bytes


@given(networks(), BATCHES)
def test_inference_never_needs_more_than_training(network, batch):
    schedule = schedules(network)
    inference = peak(schedule, batch, inference=True)
    assert inference.peak_ram_bytes <= peak(schedule, batch).peak_ram_bytes
    assert not any("saved" in role for moment in inference.timeline for role in moment.by_role)


@given(networks(), BATCHES)
def test_bias_only_training_never_needs_more(network, batch):
    names = frozenset(trained_names(network))
    biases = peak(schedules(network, bias_only=names), batch).peak_ram_bytes
    assert biases <= peak(schedules(network), batch).peak_ram_bytes


@given(networks(), st.integers(1, 3), st.integers(0, 3), st.integers(0, 4))
def test_filter_and_uncertain_instances_only_add(network, batch, n_uncertain, n_dropped):
    schedule, filter_schedule = schedules(network), schedules(network)
    with_filter = peak(
        schedule,
        batch,
        filter_schedule=filter_schedule,
        n_streamed=batch + n_uncertain + n_dropped,
        n_uncertain=n_uncertain,
    )
    assert with_filter.peak_ram_bytes >= peak(schedule, batch).peak_ram_bytes


@given(st.integers(0, 1000), BITS)
def test_containers_hold_at_least_the_packed_bits(n, bits):
    packed, contained = Packing().bytes(n, bits), Packing(containers=True).bytes(n, bits)
    assert n * bits <= 8 * packed < n * bits + 8
    assert packed <= contained <= 2 * packed
