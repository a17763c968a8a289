"""Microcontrollers: cycles of an Op's kernels on a core with a kernel library, and the energy of that time."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from hwmodel.containers import container_bits
from hwmodel.cost import KernelCost
from hwmodel.devices import Constant, Device
from hwmodel.errors import HwmodelError, unknown
from hwmodel.kernels import works
from hwmodel.operations import Op
from hwmodel.work import Work

FORMS = ("conv", "pointwise", "depthwise", "linear")


@dataclass(frozen=True, eq=False)
class Core:
    """Cycles per unit of work by kernel, for integers and floats, with the reference kernel library."""

    name: str
    reference: str
    native_bits: tuple[int, ...]
    unpack: float
    bound: float
    integer: Mapping[str, float]
    floating: Mapping[str, float]
    width: Mapping[str, float]

    def unit_cycles(self, kernel: str, floating: bool) -> float:
        """Cycles per unit of `kernel`; a backward product loop without its own row costs what the forward does."""
        table = self.floating if floating else self.integer
        for name in (kernel, kernel.replace("_gradient", "").replace("_error", "")):
            if name in table:
                return table[name]
        raise HwmodelError(unknown("kernel", kernel, table))


@cache
def core(name: str) -> Core:
    """A core by name. Raises HwmodelError for an unknown one."""
    rows = _table("cores")
    if name not in rows:
        raise HwmodelError(unknown("core", name, rows))
    row = rows[name]
    if "like" not in row:
        return Core(name, row["reference"], tuple(row["native_bits"]), row["unpack"], row["bound"],
                    row["int"], row["float"], row["width"])  # fmt: skip
    base, scale = core(row["like"]), row["scale"]
    return Core(
        name,
        row.get("reference", base.reference),
        tuple(row.get("native_bits", base.native_bits)),
        row.get("unpack", base.unpack * scale),
        row.get("bound", base.bound),
        {**{key: value * scale for key, value in base.integer.items()}, **row.get("int", {})},
        {**{key: value * scale for key, value in base.floating.items()}, **row.get("float", {})},
        row.get("width", base.width),
    )


@cache
def _table(name: str) -> dict[str, Any]:
    text = (resources.files("hwmodel") / "calibration" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def libraries() -> list[str]:
    """Names of the kernel libraries."""
    return sorted(_table("libraries"))


def configured(device: Device, kernels: str | None, clock_mhz: float | None) -> Device:
    """The device with another kernel library or clock; raises HwmodelError for one it cannot have."""
    if kernels is not None:
        if kernels not in libraries():
            raise HwmodelError(unknown("kernel library", kernels, libraries()))
        device = device.with_texts(kernels=kernels)
    if clock_mhz is not None:
        top = device.value("clock_hz")
        if not 0 < clock_mhz * 1e6 <= top:
            raise HwmodelError(f"device {device.name!r} runs at up to {top / 1e6:g} MHz, not {clock_mhz:g}")
        device = device.with_constants(clock_hz=Constant(clock_mhz * 1e6, "Hz", "as asked", "derived"))
    return device


def power_w(device: Device) -> float:
    """Active power: the library's own where it was measured on this board, else the board's default."""
    return device.get("power." + device.texts["kernels"], device.value("power.default"))


def kernel_costs(op: Op, density: float, device: Device) -> list[KernelCost]:
    """Every kernel of one Op, with its cycles and the energy of its time; zeros are not skipped by any MCU."""
    table, joules_per_cycle = core(device.texts["core"]), power_w(device) / device.value("clock_hz")
    costs = []
    for work in works(op):
        cycles, flash_bytes = _cycles(work, op, table, device)
        costs.append(
            KernelCost(op.layer.name, op.layer.kind, work.kernel, work.phase, work.macs, cycles,
                       cycles * joules_per_cycle, work.sram_bytes, flash_bytes)  # fmt: skip
        )
    return costs


def _cycles(work: Work, op: Op, table: Core, device: Device) -> tuple[float, float]:
    """Cycles and bytes read from flash of one kernel."""
    floating = op.widths.floating
    cycles = work.units * table.unit_cycles(work.kernel, floating)
    if work.outputs:
        per_output = table.unit_cycles(work.kernel + "_output", floating)
        cycles = work.units * table.unit_cycles(work.kernel, floating) * _width(work, table, floating)
        cycles += work.outputs * per_output
        if work.kernel.endswith("_gradient"):
            cycles = min(cycles, work.units * table.unit_cycles("outer", floating))
    cycles *= _library(work.kernel, device, table)
    if not floating and min(container_bits(bits) for bits in work.bits) not in table.native_bits:
        cycles += work.unpacked * table.unpack
    return cycles + _flash_cycles(work, device), work.weight_bytes


def _width(work: Work, table: Core, floating: bool) -> float:
    if floating:
        return 1.0
    wide, narrow = sorted((max(8, container_bits(bits)) for bits in work.bits), reverse=True)
    return table.width.get(f"{wide}x{narrow}", table.width["16x16"])


def _library(kernel: str, device: Device, table: Core) -> float:
    rows = _table("libraries")
    form = kernel.split("_")[0]
    key = form if form in FORMS else "other"
    return float(rows[device.texts["kernels"]][key] / rows[table.reference][key])


def _flash_cycles(work: Work, device: Device) -> float:
    """Wait states of frozen weights: a cache pays the first touch only, if the layer's weights fit it."""
    stall = device.get("flash_stall", 0.0)
    cached = work.weight_bytes <= device.get("cache_bytes", 0.0)
    return stall * work.weight_bytes * (1.0 if cached else max(1.0, work.reuse))
