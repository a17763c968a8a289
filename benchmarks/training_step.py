"""A training step (batch 1, int8) of two networks on three devices: latency, energy and peak RAM by phase, as markdown.

Run: python benchmarks/training_step.py > benchmarks/results/training_step.md
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from hwmodel import devices, network
from hwmodel.bill import Bill
from hwmodel.operations import REPORT_PHASES, Widths
from hwmodel.pricing import price
from hwmodel.schedule import Schedule

DEVICES = ("stm32f746", "stm32l4r5", "gap9")
NETWORKS = {"resnet8": "stage3*,fc", "mobilenetv1-0.25": "block13*,fc"}
"""Each network with its last block."""
PROSE = """# A training step, batch 1, int8

Command: `python benchmarks/training_step.py > benchmarks/results/training_step.md`. A row is also what
`qtrain estimate --model MODEL --device DEVICE --norm folded --momentum 0 --fused-update` prints, with
`--train "{last}"` (resnet8's last block; mobilenetv1-0.25's is `{other}`) or `--train "" --train-bias "*"`.
Normalizations are folded into the convolutions, as on-device training does (Lin et al. 2022), there is no
momentum, and each layer is updated inside the backward pass. Energy of training on a microcontroller is an
extrapolation: power of inference times modelled cycles; the stm32f746's power and cache are assumed. Backward
passes were measured on no board. Frozen weights are read from flash, trained ones from SRAM: a forward pass of
frozen layers takes longer.

Three sentences to check by hand, for resnet8 on the stm32l4r5 with all layers:
- MACs: forward does {forward:,}; the weight gradient as many; the input error as many less the first layer's
  {first:,} (nothing lies below it), {total:,} in all; {cycles:,.0f} cycles at 120 MHz are
  {time_ms:.0f} ms, and at {power_mw:.1f} mW {energy_mj:.1f} mJ.
- RAM: the peak is at {moment}:{tenants}. The masters are
  2 bytes of each of the {parameters:,} parameters; the accumulators are 3 more bytes for each 1-byte gradient of
  the layer, whose exponent is known only when all are summed.
- Subsets: the last block alone has {block_gradient:,} gradient MACs ({gradient_share:.0%}) and {block_error:,}
  error MACs, and keeps the inputs of its own layers only; biases alone need no weight gradient and no saved
  input, but the whole input error.
"""


def bill(name: str, device: str, train: str, biases: str = "") -> Bill:
    """The bill of one step that trains the layers and biases matching the globs."""
    net = network.load(name).normalized_by(lambda _: "folded")
    chosen = net.choose_trained(train, biases)
    schedule = Schedule(net, Widths.uniform(8), frozen=chosen.frozen, bias_only=chosen.bias_only, fused_update=True)
    return price(schedule.step(1), devices.load(device), schedule=schedule)


def main() -> None:
    """Prose with the numbers it explains, then a table a network."""
    print(PROSE.format(**figures()))
    for name, last in NETWORKS.items():
        print(f"## {name}\n\n| device | trained | phase | MACs | latency | energy | peak RAM |")
        print("|---|---|---|---:|---:|---:|---:|")
        for device in DEVICES:
            for what, train, biases in (("all", "all", ""), (last, last, ""), ("biases", "", "*")):
                show(bill(name, device, train, biases), device, what)
        print()


def show(found: Bill, device: str, what: str) -> None:
    """A row a phase, and one of the whole step."""
    assert found.memory is not None
    clock = found.device.value("clock_hz")
    for phase in REPORT_PHASES:
        sums = found.by_phase[phase]
        moments = [m.n_bytes for m in found.memory.timeline if m.name.split()[0] == phase]
        if sums.cycles:
            peak = f"{max(moments) / 1024:.1f} KiB" if moments else ""
            cells = f"{sums.macs:,} | {sums.cycles / clock * 1e3:.2f} ms | {sums.energy_j * 1e3:.3f} mJ | {peak}"
            print(f"| {device} | {what} | {phase} | {cells} |")
    total = f"{found.totals.macs:,} | {found.time_s * 1e3:.2f} ms | {found.energy_j * 1e3:.3f} mJ"
    verdict = "fits" if found.fits else f"does not fit; {found.cure} would" if found.cure else "does not fit"
    print(f"| {device} | {what} | **step** | {total} | {found.memory.peak_ram_bytes / 1024:.1f} KiB, {verdict} |")


def figures() -> dict[str, object]:
    """The numbers of the prose."""
    last = NETWORKS["resnet8"]
    whole, block = bill("resnet8", "stm32l4r5", "all"), bill("resnet8", "stm32l4r5", last)
    assert whole.memory is not None
    tenants = sorted(whole.memory.tenants, key=lambda t: -t.n_bytes)
    by_role: dict[str, int] = {}
    for tenant in tenants:
        by_role[tenant.role] = by_role.get(tenant.role, 0) + tenant.n_bytes
    parameters = network.load("resnet8").normalized_by(lambda _: "folded").n_parameters
    gradient = whole.by_phase["gradient"].macs
    return {
        "last": last,
        "other": NETWORKS["mobilenetv1-0.25"],
        "forward": whole.by_phase["forward"].macs,
        "first": whole.by_phase["forward"].macs - whole.by_phase["error"].macs,
        "total": sum(whole.by_phase[phase].macs for phase in ("forward", "error", "gradient")),
        "cycles": whole.cycles,
        "time_ms": whole.time_s * 1e3,
        "power_mw": whole.energy_j / whole.time_s * 1e3,
        "energy_mj": whole.energy_j * 1e3,
        "moment": whole.memory.peak_moment,
        "tenants": "\n  " + ",\n  ".join(f"{n:,} bytes of {role}" for role, n in by_role.items()),
        "parameters": parameters,
        "masters": 2 * parameters,
        "block_gradient": block.by_phase["gradient"].macs,
        "gradient_share": block.by_phase["gradient"].macs / gradient,
        "block_error": block.by_phase["error"].macs,
    }


if __name__ == "__main__":
    main()
