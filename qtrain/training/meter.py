"""Energy spent so far on one device, cheap enough to ask often: every distinct pass is priced once."""

from __future__ import annotations

from hwmodel import pricing
from hwmodel.devices import Device
from hwmodel.schedule import Schedule
from qtrain.layers import QuantizedNetwork

_DENSITY_DIGITS = 2


class EnergyMeter:
    """Joules of the passes a network has recorded, for a device with a kernel library (empty: its own)."""

    def __init__(self, net: QuantizedNetwork, schedule: Schedule, device: Device) -> None:
        self.net, self.schedule, self.device = net, schedule, device
        self._joules: dict[tuple[tuple[int, str, str, int, int], float], float] = {}

    def read_j(self) -> float:
        """Energy in joules of everything recorded so far."""
        total = 0.0
        for key, (count, density_sum) in self.net.counts.items():
            total += count * self._price(key, round(density_sum / count, _DENSITY_DIGITS))
        return total

    def _price(self, key: tuple[int, str, str, int, int], density: float) -> float:
        found = self._joules.get((key, density))
        if found is None:
            index, phase, payer, batch, kept = key
            op = self.schedule.op(self.net.network.layers[index], phase, batch, payer, kept)
            found = sum(cost.energy_j for cost in pricing.kernel_costs(op, density, self.device))
            self._joules[(key, density)] = found
        return found
