"""Energy of a microcontroller: power of the whole system times time.

One power per system (board, engine, supply) predicts the measured energies of MLPerf Tiny within 4 % of the latency's
own; how it splits into a clocked and a static share only matters at another clock.
"""

from __future__ import annotations

from hwmodel.devices import Device

STATIC_SHARE = 0.1
"""Share of the active power that does not scale with the clock where a profile states no static_w (assumed)."""


def power_w(device: Device) -> float:
    """Active power at the device's clock: the library's own where it was measured on this board, else the default."""
    return device.get("power." + device.texts["kernels"], device.value("power.default"))


def scaled_power_w(power: float, static_w: float | None, ratio: float) -> float:
    """Power at `ratio` of the clock and the same voltage: the static share stays, the rest is proportional."""
    static = min(power, STATIC_SHARE * power if static_w is None else static_w)
    return static + (power - static) * ratio


def joules_per_cycle(device: Device) -> float:
    """Energy of one clock cycle of an active core."""
    return power_w(device) / device.value("clock_hz")
