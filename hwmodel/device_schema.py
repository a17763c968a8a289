"""The keys a device TOML may hold: texts, and constants with the unit each must be given in.

Keys are dotted paths; `*` stands for one name (a library, an operating point, a bit width). Add keys of a new kind of
device here; `hwmodel.devices` checks every file against these tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BASES = ("measured", "datasheet", "published", "derived", "assumed")
"""Where a constant comes from; a bill lists the assumed ones."""


@dataclass(frozen=True)
class Schema:
    """Texts and constants (pattern -> unit) of one kind of device."""

    required_texts: tuple[str, ...] = ()
    optional_texts: tuple[str, ...] = ()
    required: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)


COMMON_TEXTS = ("kind", "title", "basis")
"""title: what it is; basis: where its cycles come from ("measured", "predicted from the cortex-m33 family")."""

MCU = Schema(
    required_texts=("core", "kernels"),
    optional_texts=("power_basis", "regulator"),
    required={
        "clock_hz": "Hz",
        "sram_bytes": "byte",
        "flash_bytes": "byte",
        "power.default": "W",
        "supply_v": "V",
    },
    optional={
        "power.*": "W",
        "flash_stall": "cycle/byte",
        "cache_bytes": "byte",
        "code_bytes": "byte",
        "cycle_factor": "1",
        "static_w": "W",
        "points.*.clock_hz": "Hz",
        "points.*.power_w": "W",
        "ranges.*.clock_hz": "Hz",
        "ranges.*.core_v": "V",
        "ranges.*.wait_hz": "Hz",
    },
)
"""ranges: voltage ranges of the core, each with its highest clock and the clock after which flash needs another wait
state; regulator: ldo (the default) or smps, between supply and core."""

ACCELERATOR = Schema(
    required_texts=("dataflow",),
    optional_texts=("zeros", "datapath", "core", "fused", "power_basis", "error_class"),
    required={
        "clock_hz": "Hz",
        "sram_bytes": "byte",
        "static_w": "W",
        "mac.bits": "bit",
        "mac.energy_j": "J",
        "energy.buffer": "J/byte",
    },
    optional={
        "buffer_bytes": "byte",
        "flash_bytes": "byte",
        "external_bytes": "byte",
        "code_bytes": "byte",
        "supply_v": "V",
        "launch_cycles": "cycle",
        "clocked_share": "1",
        "array.rows": "1",
        "array.cols": "1",
        "array.input_registers": "word",
        "array.filter_registers": "word",
        "array.sum_registers": "word",
        "array.sum_bits": "bit",
        "array.efficiency": "1",
        "array.output_cycles": "cycle",
        "mac.min_bits": "bit",
        "mac.accumulator_bits": "bit",
        "energy.register": "J/byte",
        "energy.array": "J/byte",
        "energy.backing": "J/byte",
        "energy.flash": "J/byte",
        "bandwidth.buffer": "byte/cycle",
        "bandwidth.backing": "byte/cycle",
        "bandwidth.flash": "byte/cycle",
        "vector.ops_per_cycle": "1/cycle",
        "vector.op_j": "J",
        "vector.cycles.*": "cycle",
        "cluster.cores": "1",
        "cluster.efficiency": "1",
        "cluster.min_bits": "bit",
        "cluster.barrier_cycles": "cycle",
        "cluster.cycle_j": "J",
        "cluster.cycles.*": "cycle",
        "points.*.clock_hz": "Hz",
        "points.*.supply_v": "V",
        "points.*.static_w": "W",
    },
)
"""dataflow: weight-, output- or row-stationary, block (Ethos-U55), ne16 (GAP9), none (cores only). `cluster.*` and the
text `core` describe cores that run what the array does not, `vector.*` a vector unit that does so instead."""

ROOFLINE = Schema(
    optional_texts=("power_basis", "error_class"),
    required={
        "clock_hz": "Hz",
        "sram_bytes": "byte",
        "external_bytes": "byte",
        "macs_per_cycle": "1/cycle",
        "power_w": "W",
        "launch_s": "s",
        "efficiency": "1",
        "tile_channels": "1",
        "bandwidth.backing": "byte/cycle",
    },
)

COUNTS = ("clock_hz", "sram_bytes", "buffer_bytes", "array.rows", "array.cols", "array.*_registers", "array.sum_bits",
          "mac.bits", "cluster.cores", "tile_channels")  # fmt: skip
"""At least 1: there is no device without them, and prices divide by them."""
RATES = ("*efficiency", "bandwidth.*", "*_per_cycle", "supply_v", "ranges.*")
LEAST_RATE = 1e-6
"""At least this, for the same reason."""

SCHEMAS = {"mcu": MCU, "accelerator": ACCELERATOR, "roofline": ROOFLINE}

ABSENT = {
    "max78000": "its engine's published timings are of inferences by its own compiler, which fuses and cuts layers in "
    "ways not published; backward passes would run on its Cortex-M4 (price those as stm32l4r5)",
    "rx65n": "no cycle count of an RXv2 on any kernel, nor its current, was found to rest a price on; the nearest core "
    "with SIMD products is a Cortex-M4",
}
"""Devices that one may look for, and why no profile of them would be sound."""
