"""Our ethos-u55-128 against Vela's own estimate, layer by layer, as a markdown table.

python -m venv .vela && .vela/bin/pip install ethos-u-vela==5.2.0
for net in resnet8 mobilenetv1-0.25 dscnn autoencoder; do
    .vela/bin/python benchmarks/accelerators/write_tflite.py $net $net.tflite
    .vela/bin/vela $net.tflite --accelerator-config ethos-u55-128 --output-dir vela --verbose-performance
done
python benchmarks/accelerators/compare_vela.py vela
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from hwmodel import devices
from hwmodel.network import load
from hwmodel.operations import Widths
from hwmodel.pricing import price
from hwmodel.schedule import inference


def vela_cycles(path: Path) -> dict[str, float]:
    """Cycles by output tensor, which carries the layer's name."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {row["Name"].split("/")[-1]: float(row["Op Cycles"]) for row in rows if float(row["Op Cycles"])}


def main() -> None:
    device = devices.load("ethos-u55-128")
    print("| network | layer | ours, cycles | Vela, cycles | difference |\n|---|---|---:|---:|---:|")
    for path in sorted(Path(sys.argv[1]).glob("*_per-layer.csv")):
        name = path.name.removesuffix("_per-layer.csv")
        bill = price(inference(load(name), Widths()), device, scope="inference")
        mine: dict[str, float] = {}
        for (layer, _, _), sums in bill.by_layer.items():
            mine[layer] = mine.get(layer, 0.0) + sums.cycles
        theirs = vela_cycles(path)
        for layer, cycles in mine.items():
            if layer in theirs:
                print(
                    f"| {name} | {layer} | {cycles:,.0f} | {theirs[layer]:,.0f} | {cycles / theirs[layer] - 1:+.0%} |"
                )
        total = sum(theirs.values())
        print(f"| **{name}** | **total** | {bill.cycles:,.0f} | {total:,.0f} | {bill.cycles / total - 1:+.1%} |")


if __name__ == "__main__":
    main()
