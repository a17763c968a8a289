"""A device with another kernel library, or at another clock or operating point."""

from __future__ import annotations

import dataclasses
import math

from hwmodel import cores
from hwmodel.devices import Constant, Device
from hwmodel.energy import scaled_power_w
from hwmodel.errors import HwmodelError


def configured(device: Device, kernels: str | None = None, clock_mhz: float | None = None) -> Device:
    """The device with another kernel library or clock; raises HwmodelError for one it cannot have."""
    if kernels is not None:
        device = _with_library(device, kernels)
    if clock_mhz is None:
        return device
    top, asked = device.value("clock_hz"), clock_mhz * 1e6
    if not 0 < asked <= top:
        raise HwmodelError(f"device {device.name!r} runs at up to {top / 1e6:g} MHz, not {clock_mhz:g}")
    return _microcontroller(device, asked) if device.kind == "mcu" else _accelerator(device, asked)


def _with_library(device: Device, kernels: str) -> Device:
    if device.kind != "mcu":
        raise HwmodelError(f"device {device.name!r} runs no kernel library; leave out kernels {kernels!r}")
    only = cores.library(kernels).cores
    if only and device.texts["core"] not in only:
        raise HwmodelError(
            f"kernels {kernels!r} run on {', '.join(only)} only; {device.name!r} is a {device.texts['core']}"
        )
    return device.with_texts(kernels=kernels)


def _microcontroller(device: Device, clock_hz: float) -> Device:
    """Below the top clock flash needs fewer wait states and the clocked share of the power shrinks, more so where a
    lower voltage range suffices (ranges.*); a stated operating point overrides the power."""
    ratio = clock_hz / device.value("clock_hz")
    static = device.constants.get("static_w")
    volts, waits = _range_ratios(device, clock_hz)
    stall = device.get("flash_stall", 0.0) * waits
    changed = {
        "clock_hz": Constant(clock_hz, "Hz", "as asked", "derived"),
        "flash_stall": Constant(stall, "cycle/byte", "wait states fall with the clock", "derived"),
    }
    for key, constant in device.section("power").items():
        power = scaled_power_w(constant.value, static.value if static else None, ratio * volts)
        changed["power." + key] = Constant(power, "W", "scaled from the top clock", "derived")
    for point in {key.split(".")[0] for key in device.section("points")}:
        if device.value(f"points.{point}.clock_hz") == clock_hz:
            changed["power.default"] = device.constants[f"points.{point}.power_w"]
    return device.with_constants(**changed)


def _range_ratios(device: Device, clock_hz: float) -> tuple[float, float]:
    """(charge from the supply per cycle, flash wait states) at a clock against those at the top one.

    The lowest voltage range that reaches the clock is chosen. Behind an LDO the supply gives the core's own current,
    which falls with the core's voltage; behind a switching regulator power falls with its square.
    """
    ranges = sorted(
        {key.split(".")[0] for key in device.section("ranges")}, key=lambda name: _of(device, name, "clock_hz")
    )
    top = device.value("clock_hz")
    if not ranges:
        return 1.0, clock_hz / top
    own = next(name for name in ranges if _of(device, name, "clock_hz") >= clock_hz)
    volts = _of(device, own, "core_v") / _of(device, ranges[-1], "core_v")
    waits, most = _waits(clock_hz, _of(device, own, "wait_hz")), _waits(top, _of(device, ranges[-1], "wait_hz"))
    return volts ** (2 if device.texts.get("regulator") == "smps" else 1), waits / most if most else 0.0


def _of(device: Device, voltage_range: str, key: str) -> float:
    return device.value(f"ranges.{voltage_range}.{key}")


def _waits(clock_hz: float, wait_hz: float) -> int:
    return max(0, math.ceil(clock_hz / wait_hz - 1e-9) - 1)


def _accelerator(device: Device, clock_hz: float) -> Device:
    """Memories outside the clock's domain keep their bytes per second.

    At a stated operating point (points.NAME) static power is the point's and energy per operation falls with the
    square of the supply; elsewhere the clocked share of static power follows the clock. A roofline's power is its
    power mode's at any clock.
    """
    top = device.value("clock_hz")
    if clock_hz == top:
        return device
    changed = {"clock_hz": _times(device.constants["clock_hz"], clock_hz / top)}
    if "static_w" in device.constants:
        clocked = device.get("clocked_share", 0.0)
        changed["static_w"] = _times(device.constants["static_w"], 1 - clocked + clocked * clock_hz / top)
    if "external_bytes" in device.constants and "bandwidth.backing" in device.constants:
        changed["bandwidth.backing"] = _times(device.constants["bandwidth.backing"], top / clock_hz)
    for point in {key.split(".")[0] for key in device.section("points")}:
        if device.value(f"points.{point}.clock_hz") == clock_hz:
            supply = device.value(f"points.{point}.supply_v") / device.value("supply_v")
            changed["static_w"] = device.constants[f"points.{point}.static_w"]
            for key, constant in device.constants.items():
                if key.startswith("energy.") or key.endswith("_j"):
                    changed[key] = _times(constant, supply**2)
    return device.with_constants(**changed)


def _times(constant: Constant, factor: float) -> Constant:
    source = f"{constant.source}; x {factor:.4g} for the clock asked for"
    return dataclasses.replace(constant, value=constant.value * factor, source=source)
