"""Stochastic gradient descent in fixed point: 16-bit masters and momentum, constants as mantissa x 2^exponent.

With gradient codes g, the batch's 1/n as s, momentum mu, decay d and rate eta each a 16-bit mantissa x 2^e:
    v <- round(mu v + s g + d w)       momentum_bits, exponent from the new maximum
    w <- round(w - eta v)              master_bits; the exponent grows when the weights outgrow it, never shrinks
Sums are exact integers up to 53 bits (wider ones are rounded to nearest even at 53). No float copy of w or v exists.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qtrain.engine import update as compiled
from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedPoint
from qtrain.formats.noise import Stream, step_key
from qtrain.layers.emulated import rounded, stored_format
from qtrain.layers.flat import Target, grouped, joined, magnitudes, parted, round_joined
from qtrain.layers.network import QuantizedNetwork
from qtrain.layers.quantizer import NEAREST, Clock
from qtrain.layers.shift import shifted

CONSTANT_BITS = 16
_HEADROOM = 2.0
"""Masters start with room for twice their initial maximum."""
_EMPTY_AMAX = 1.0
"""The range given to a tensor that starts at zero (biases, shifts): their trained values stay below one."""


def constant(value: float) -> float:
    """`value` rounded to a 16-bit mantissa (the device multiplies by mantissa, then shifts)."""
    if value == 0.0:
        return 0.0
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 2**CONSTANT_BITS), exponent - CONSTANT_BITS)


class FixedSGD:
    """SGD with momentum and weight decay on a QuantizedNetwork's parameters; plain PyTorch's in a float32 plan."""

    def __init__(
        self,
        net: QuantizedNetwork,
        lr: float | Callable[[int], float],
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        payer: str = "main",
    ) -> None:
        """`lr`: the learning rate, or what gives it for a step."""
        self.net, self.lr, self.momentum, self.weight_decay, self.payer = net, lr, momentum, weight_decay, payer
        self.parameters = dict(net.model.named_parameters())
        self.formats: dict[str, tuple[Any, Any]] = {}  # of master and momentum
        self.roundings: dict[str, str] = {}
        self.exponents: dict[str, int] = {}
        self.velocity: dict[str, Tensor] = {}
        self.plain: torch.optim.SGD | None = None
        if net.plan.floating:
            self.plain = torch.optim.SGD(net.model.parameters(), self._rate(0), momentum, weight_decay=weight_decay)
            return
        self._streams = {
            name: (self._stream_id(f"{name}.master"), self._stream_id(f"{name}.momentum")) for name in self.parameters
        }
        for name, parameter in self.parameters.items():
            self._settle(name, parameter)

    def _settle(self, name: str, parameter: nn.Parameter) -> None:
        """Put the initial values on the master grid."""
        layer = name.rpartition(".")[0]
        widths, formats = self.net.plan.for_layer(layer), self.net.plan.formats_for(layer)
        master, _ = self.formats[name] = (
            stored_format(formats.master_format, widths.master_bits),
            stored_format(formats.momentum_format, widths.momentum_bits),
        )
        self.roundings[name] = self.net.plan.rules_for(layer).rounding_of("update")
        if not isinstance(master, FixedPoint):
            parameter.data.copy_(rounded(master, parameter.data, NEAREST, None))
            return
        if widths.master_bits > 24 and parameter.dtype == torch.float32:
            parameter.data = parameter.data.double()
        amax = float(parameter.detach().abs().max())
        self.exponents[name] = master.exponent_for(_HEADROOM * amax or _EMPTY_AMAX)
        parameter.data.copy_(master.quantize(parameter.data.double(), self.exponents[name]))

    def _rate(self, step: int) -> float:
        return self.lr(step) if callable(self.lr) else self.lr

    def step(self, clock: Clock, scale: float = 1.0, lr: float | None = None) -> None:
        """One update from the gradients in `.grad`, which are cleared. `scale` multiplies them (1/n in fixed point).

        Raises QtrainError when a parameter stops being finite.
        """
        rate = self._rate(clock.step) if lr is None else lr
        self.net.record_update(self.payer)
        if self.plain is not None:
            self.plain.param_groups[0]["lr"] = rate
            for parameter in self.parameters.values():
                if scale != 1.0 and parameter.grad is not None:
                    parameter.grad.mul_(scale)
            untrained = [(p, n, p.data[n:].clone()) for name, p in self.parameters.items() if (n := self._rows(name))]
            self.plain.step()
            for p, n, rest in untrained:  # weight decay would reach them
                p.data[n:] = rest
            self.plain.zero_grad(set_to_none=True)
            return
        with torch.no_grad():
            shifts = self.net.plan.update == "shift"
            done = set() if shifts else self._compiled(clock, constant(scale), constant(rate))
            left = [name for name, p in self.parameters.items() if p.grad is not None and name not in done]
            if shifts:
                for name in left:
                    self._shift(name, *self._learning(name, self.parameters[name]), clock, rate if scale else 0.0)
            else:
                for names in grouped(left, [self.parameters[name].numel() for name in left]):
                    self._update(names, clock, constant(scale), constant(rate))
            for parameter in self.parameters.values():
                parameter.grad = None

    def _rows(self, name: str) -> int:
        """Output channels of a parameter that learn; 0: all."""
        return self.net.trained_channels.get(name.rpartition(".")[0], 0)

    def _learning(self, name: str, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """The part of a parameter that learns, and its gradient."""
        assert parameter.grad is not None
        n = self._rows(name)
        return (parameter.data[:n], parameter.grad[:n]) if n else (parameter.data, parameter.grad)

    def _update(self, names: list[str], clock: Clock, scale: float, rate: float) -> None:
        """The parameters `names` as one vector: their arithmetic is some twenty operations, however many they are."""
        pairs = [self._learning(name, self.parameters[name]) for name in names]
        shapes = [w.shape for w, _ in pairs]
        weights, v = (joined(list(tensors)) for tensors in zip(*pairs, strict=True))
        v.mul_(scale)
        if self.momentum and self.velocity:
            before = joined([
                self.velocity[name] if name in self.velocity else -torch.zeros_like(w)  # -0 + v is v, its sign too
                for name, (w, _) in zip(names, pairs, strict=True)
            ])  # fmt: skip
            v = before.mul_(constant(self.momentum)).add_(v)
        if self.weight_decay:
            v.add_(weights * constant(self.weight_decay))
        if self.momentum:
            v = self._round(v, names, shapes, clock, 1)
            for name, (w, _), part in zip(names, pairs, parted(v, shapes), strict=True):
                self.velocity[name] = part.to(w.dtype, copy=True)
        stepped = self._round(weights.sub_(v.mul_(rate)), names, shapes, clock, 0)
        for (w, _), part in zip(pairs, parted(stepped, shapes), strict=True):
            w.copy_(part)

    def _shift(self, name: str, w: Tensor, grad: Tensor, clock: Clock, rate: float) -> None:
        """The update by shifts: codes alone count, the master's exponent stays."""
        if not math.isfinite(float(grad.abs().max())):
            raise self._not_finite(name, clock)
        exponent, (fmt, _) = self.exponents[name], self.formats[name]
        stepped = shifted(w, grad, exponent, rate, self.net.plan.for_layer(name.rpartition(".")[0]))
        stream = Stream(clock.seed, clock.step, self._streams[name][0])
        w.copy_(fmt.quantize(stepped, exponent, self.roundings[name], stream))

    def _compiled(self, clock: Clock, scale: float, rate: float) -> set[str]:
        """The same updates by the compiled kernels; names of the parameters they took."""
        entries = {}
        for name, w in self.parameters.items():
            if w.grad is None:
                continue
            before = self.velocity.get(name) if self.momentum else None
            found = compiled.entry(
                *self._learning(name, w), before, bool(self.momentum), self.exponents.get(name, 0), self.formats[name],
                self._streams[name], self.roundings[name],
            )  # fmt: skip
            if found is not None:
                entries[name] = found
        if not entries:
            return set()
        terms = compiled.Terms(
            scale, constant(self.momentum), constant(self.weight_decay), rate, step_key(clock.seed, clock.step),
            torch.get_num_threads(),
        )  # fmt: skip
        for (name, found), after in zip(entries.items(), compiled.update(list(entries.values()), terms), strict=True):
            if not after.finite:
                raise self._not_finite(name, clock)
            self.exponents[name] = after.least
            if found.velocity is not None:
                self.velocity[name] = found.velocity
        return set(entries)

    def _stream_id(self, name: str) -> int:
        return zlib.crc32(f"{self.payer}.{name}".encode())

    def _not_finite(self, name: str, clock: Clock) -> QtrainError:
        return QtrainError(f"{name} is not finite after step {clock.step}; lower the learning rate (--lr)")

    def _round(self, x: Tensor, names: list[str], shapes: list[torch.Size], clock: Clock, role: int) -> Tensor:
        """The joined tensors in x as masters (role 0) or momentum (1) of the parameters `names`."""
        targets = []
        for name, amax in zip(names, magnitudes(x, shapes), strict=True):
            if not math.isfinite(amax):
                raise self._not_finite(name, clock)
            fmt = self.formats[name][role]
            exponent = fmt.exponent_for(amax) if isinstance(fmt, FixedPoint) else 0
            if role == 0 and name in self.exponents:
                exponent = self.exponents[name] = max(self.exponents[name], exponent)
            stream = Stream(clock.seed, clock.step, self._streams[name][role])
            targets.append(Target(fmt, self.roundings[name], exponent, stream))
        return round_joined(x, shapes, targets)

    def state(self) -> dict[str, Any]:
        """Exponents of the masters: what a checkpoint holds besides `tensors`."""
        return {"exponents": dict(self.exponents)}

    def tensors(self) -> dict[str, Tensor]:
        """Momentum by parameter name."""
        if self.plain is None:
            return dict(self.velocity)
        state = self.plain.state
        return {
            name: state[p]["momentum_buffer"]
            for name, p in self.parameters.items()
            if state[p].get("momentum_buffer") is not None
        }

    def load(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Continue where `state` and `tensors` were taken."""
        self.exponents = dict(state["exponents"])
        if self.plain is None:
            self.velocity = dict(tensors)
            return
        for name, p in self.parameters.items():
            if name in tensors:
                self.plain.state[p]["momentum_buffer"] = tensors[name]
