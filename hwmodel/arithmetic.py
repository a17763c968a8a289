"""Energy and throughput of a multiply-accumulate by the bits of its operands."""

from __future__ import annotations

from hwmodel.containers import container_bits
from hwmodel.devices import Device
from hwmodel.errors import HwmodelError, unknown

MULTIPLY_8_PJ, ADD_32_PJ, FLOAT32_PJ = 0.2, 0.1, 3.7 + 0.9
"""Integer 8-bit multiply, integer 32-bit add, float32 multiply and add at 45 nm (Horowitz, ISSCC 2014, fig.
1.1.9)."""
DATAPATHS = ("fixed", "gated", "simd", "bit-serial")
"""fixed: words of the native width whatever they hold. gated: unused bits do not toggle: less energy, same
rate. simd: halving the wider operand doubles the rate. bit-serial: cycles in proportion to the filter's
bits."""


def mac_pj(first_bits: int, second_bits: int, accumulator_bits: int, floating: bool = False) -> float:
    """Picojoules of one multiply-accumulate at 45 nm.

    An array multiplier has as many cells as the product of its widths, an adder as its width; the rule
    gives 3.2 pJ for a 32-bit multiply where the same table measures 3.1.
    """
    if floating:
        return FLOAT32_PJ
    return MULTIPLY_8_PJ * first_bits * second_bits / 64 + ADD_32_PJ * accumulator_bits / 32


class Datapath:
    """How a device's multipliers use the widths of their operands.

    Raises HwmodelError for a datapath it does not know.
    """

    def __init__(self, device: Device) -> None:
        self.kind = device.texts.get("datapath", "fixed")
        if self.kind not in DATAPATHS:
            raise HwmodelError(f"device {device.name!r}: " + unknown("datapath", self.kind, DATAPATHS))
        self.native = round(device.value("mac.bits"))
        self.narrowest = round(device.get("mac.min_bits", self.native))
        self.energy_j = device.value("mac.energy_j")
        self.accumulator_bits = round(device.get("mac.accumulator_bits", 32))

    def used(self, bits: int) -> int:
        """Bits that an operand takes part with."""
        if self.kind == "fixed":
            return -(-bits // self.native) * self.native
        if self.kind == "simd":
            return max(self.narrowest, container_bits(bits))
        return max(self.narrowest, bits)

    def stored(self, bits: int) -> int:
        """Bits that an operand takes in the device's memories."""
        return self.used(bits) if self.kind == "fixed" else container_bits(bits)

    def slowdown(self, input_bits: int, filter_bits: int) -> float:
        """Cycles of one product relative to a native one; wider operands take one pass per native part."""
        a, b = self.used(input_bits), self.used(filter_bits)
        parts = -(-a // self.native) * -(-b // self.native)
        if self.kind == "simd" and parts == 1:
            return max(a, b) / self.native
        if self.kind == "bit-serial":
            return -(-a // self.native)
        return parts

    def mac_j(self, input_bits: int, filter_bits: int, floating: bool) -> float:
        """Joules of one multiply-accumulate: the native one's, scaled by the 45 nm table."""
        native = mac_pj(self.native, self.native, self.accumulator_bits)
        asked = mac_pj(self.used(input_bits), self.used(filter_bits), self.accumulator_bits, floating)
        return self.energy_j * asked / native
