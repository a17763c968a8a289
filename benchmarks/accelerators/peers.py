"""Three passes of every convolution of a network, priced by this model, ZigZag or SCALE-Sim.

Each peer wants an environment of its own (hwmodel itself needs only the standard library, so it imports anywhere):
    python -m venv .zigzag && .zigzag/bin/pip install zigzag-dse==3.9.1 six
    python -m venv .scalesim && .scalesim/bin/pip install scalesim==3.0.0 "numpy<2" "pandas<2.3"
    .zigzag/bin/python benchmarks/accelerators/peers.py zigzag resnet8 > zigzag.json
    .scalesim/bin/python benchmarks/accelerators/peers.py scalesim resnet8 > scalesim.json
    python benchmarks/accelerators/peers.py ours resnet8 > ours.json
    python benchmarks/accelerators/peers.py table ours.json zigzag.json scalesim.json
Cycles and energy are those of the products alone: no launch, no requantization.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from hwmodel import devices
from hwmodel.accelerator import kernel_costs
from hwmodel.devices import Constant
from hwmodel.nests import Nest, nests
from hwmodel.network import load
from hwmodel.operations import Op, Widths
from hwmodel.schedule import Schedule

PHASES = ("forward", "error", "gradient")
Result = tuple[float, float | None]
"""Cycles and joules."""

SCALESIM_CONFIG = """
[general]
run_name = run
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
[architecture_presets]
ArrayHeight = 14
ArrayWidth = 12
ifmapsramszkB = 54
filtersramszkB = 27
ofmapsramszkB = 27
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = ws
Bandwidth = 10
ReadRequestBuffer = 64
WriteRequestBuffer = 64
[layout]
IfmapCustomLayout = False
FilterCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
"""

ZIGZAG_MAPPING = """
- name: default
  memory_operand_links: {O: O, W: I2, I: I1}
"""


def passes(network: str) -> list[Op]:
    """The products of one training step on one instance: convolutions and linear layers."""
    trace = Schedule(load(network), Widths()).step(1)
    return [op for op, _ in trace if op.phase in PHASES and op.layer.kind in ("conv", "linear")]


def scalesim(nest: Nest) -> Result:
    """A weight-stationary 14 x 12 array with 108 Kbyte of SRAM, the nest as a matrix product."""
    from scalesim.scale_sim import scalesim as simulator

    with tempfile.TemporaryDirectory() as folder:
        config, topology = Path(folder, "c.cfg"), Path(folder, "t.csv")
        config.write_text(SCALESIM_CONFIG)
        topology.write_text(f"Layer,M,N,K,\nnest,{nest.pixels},{nest.k},{nest.reduction},\n")
        layout = Path(folder, "l.csv")
        layout.write_text("Layer," + ",".join(f"x{i}" for i in range(21)) + ",\nnest," + "1," * 21 + "\n")
        run = simulator(True, False, str(config), str(topology), str(layout), True)
        run.run_scale(top_path=folder)
        layer = run.runner.single_layer_sim_object_list[0]
        return nest.groups * float(layer.get_compute_report_items()[0]), None


def zigzag(nest: Nest) -> Result:
    """ZigZag's own Eyeriss-like machine (14 x 12), latency-optimal mapping of its search."""
    from zigzag.api import get_hardware_performance_zigzag
    from zigzag.inputs import __path__ as inputs

    layer = {
        "id": 0,
        "operator_type": "Conv",
        "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
        "dimension_relations": [
            f"ix={nest.stride}*ox+{nest.spread}*fx",
            f"iy={nest.stride}*oy+{nest.spread}*fy",
        ],
        "loop_dims": ["B", "K", "C", "OY", "OX", "FY", "FX"],
        "loop_sizes": [nest.n, nest.k, nest.c, nest.p, nest.q, nest.r, nest.s],
        "operand_precision": {"W": 8, "I": 8, "O": 24, "O_final": 8},
        "operand_source": {"I": 0, "W": 0},
    }
    with tempfile.TemporaryDirectory() as folder:
        workload, mapping = Path(folder, "w.yaml"), Path(folder, "m.yaml")
        workload.write_text(json.dumps([layer]))  # JSON is YAML
        mapping.write_text(ZIGZAG_MAPPING)
        energy_pj, cycles, _ = get_hardware_performance_zigzag(
            str(workload),
            str(Path(next(iter(inputs)), "hardware", "eyeriss_like.yaml")),
            str(mapping),
            opt="latency",
            dump_folder=folder,
            loma_show_progress_bar=False,
            lpf_limit=4,
        )
    return nest.groups * float(cycles), nest.groups * float(energy_pj) * 1e-12


def peer(network: str, price: Callable[[Nest], Result]) -> dict[str, list[float]]:
    """Cycles, joules and seconds of computing by pass; each distinct nest is priced once."""
    known: dict[Nest, Result] = {}
    rows: dict[str, list[float]] = {}
    for op in passes(network):
        start = time.perf_counter()
        cycles, energy = 0.0, 0.0
        for nest in nests(op):
            if nest not in known:
                with contextlib.redirect_stdout(sys.stderr):
                    known[nest] = price(nest)
            cycles += known[nest][0]
            energy += known[nest][1] or 0.0
        rows[f"{op.layer.name} {op.phase}"] = [cycles, energy, time.perf_counter() - start]
        print(op.layer.name, op.phase, rows[f"{op.layer.name} {op.phase}"], file=sys.stderr, flush=True)
    return rows


def ours(network: str, name: str) -> dict[str, list[float]]:
    """The same rows from a device profile, its launch time left out."""
    launch = Constant(0.0, "cycle", "left out to compare products alone", "derived")
    device = devices.load(name).with_constants(launch_cycles=launch)
    rows = {}
    for op in passes(network):
        start = time.perf_counter()
        cost = next(cost for cost in kernel_costs(op, 1.0, device) if cost.macs == op.macs)
        rows[f"{op.layer.name} {op.phase}"] = [cost.cycles, cost.energy_j, time.perf_counter() - start]
    return rows


def table(files: list[str]) -> None:
    """A markdown table: cycles per layer and pass, then totals, energy and time by tool."""
    tools = {tool: rows for file in files for tool, rows in json.loads(Path(file).read_text()).items()}
    print("| pass | " + " | ".join(tools) + " |\n|---|" + "---:|" * len(tools))
    first = next(iter(tools.values()))
    for key in first:
        print(f"| {key} | " + " | ".join(f"{rows[key][0]:,.0f}" for rows in tools.values()) + " |")
    for label, column, unit in (("cycles", 0, 1.0), ("energy, µJ", 1, 1e6), ("computing time, s", 2, 1.0)):
        for phase in (*PHASES, "all three"):
            sums = [
                sum(row[column] for key, row in rows.items() if phase == "all three" or key.endswith(" " + phase))
                for rows in tools.values()
            ]
            print(f"| **{phase}: {label}** | " + " | ".join(f"{unit * s:,.4g}" if s else "–" for s in sums) + " |")


def main() -> None:
    command, *rest = sys.argv[1:]
    if command == "table":
        table(rest)
    elif command == "ours":
        print(json.dumps({name: ours(rest[0], name) for name in ("eyeriss", "systolic-14x12")}))
    else:
        price = {"zigzag": zigzag, "scalesim": scalesim}[command]
        print(json.dumps({command: peer(rest[0], price)}))


if __name__ == "__main__":
    main()
