"""The same accelerator at another clock or operating point."""

from __future__ import annotations

import dataclasses

from hwmodel.devices import Constant, Device
from hwmodel.errors import HwmodelError


def configured(device: Device, clock_mhz: float) -> Device:
    """The device at `clock_mhz`; memories outside its clock domain keep their bytes per second.

    At a stated operating point (points.NAME) static power is the point's and energy per operation falls with the
    square of the supply; elsewhere the clocked share of static power follows the clock. A roofline's power is its
    power mode's at any clock. Raises HwmodelError for a clock above the device's own.
    """
    top = device.value("clock_hz")
    asked = clock_mhz * 1e6
    if not 0 < asked <= top:
        raise HwmodelError(f"device {device.name!r} runs at up to {top / 1e6:g} MHz, not {clock_mhz:g}")
    if asked == top:
        return device
    changed = {"clock_hz": _times(device.constants["clock_hz"], asked / top)}
    if "static_w" in device.constants:
        clocked = device.get("clocked_share", 0.0)
        changed["static_w"] = _times(device.constants["static_w"], 1 - clocked + clocked * asked / top)
    if "external_bytes" in device.constants and "bandwidth.backing" in device.constants:
        changed["bandwidth.backing"] = _times(device.constants["bandwidth.backing"], top / asked)
    for point in {key.split(".")[0] for key in device.section("points")}:
        if device.value(f"points.{point}.clock_hz") == asked:
            supply = device.value(f"points.{point}.supply_v") / device.value("supply_v")
            changed["static_w"] = device.constants[f"points.{point}.static_w"]
            for key, constant in device.constants.items():
                if key.startswith("energy.") or key.endswith("_j"):
                    changed[key] = _times(constant, supply**2)
    return device.with_constants(**changed)


def _times(constant: Constant, factor: float) -> Constant:
    source = f"{constant.source}; x {factor:.4g} for the clock asked for"
    return dataclasses.replace(constant, value=constant.value * factor, source=source)
