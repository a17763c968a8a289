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
    optional_texts=("power_basis",),
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
    },
)

ACCELERATOR = Schema(
    required_texts=("dataflow",),
    optional_texts=("zeros", "datapath", "core", "fused", "power_basis", "error_class"),
    required={"clock_hz": "Hz", "sram_bytes": "byte"},
    optional={"*": "", "*.*": "", "*.*.*": ""},
)

ROOFLINE = Schema(
    required={"clock_hz": "Hz", "sram_bytes": "byte"},
    optional={"*": "", "*.*": "", "*.*.*": ""},
)

SCHEMAS = {"mcu": MCU, "accelerator": ACCELERATOR, "roofline": ROOFLINE}
