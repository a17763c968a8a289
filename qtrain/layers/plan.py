"""The number plan: which format, rounding and scale rule each role of each layer gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hwmodel.operations import ALIGNMENT_BITS, STOCHASTIC_ROLES, Widths, accumulator_bits
from qtrain.formats import names
from qtrain.globs import matching

Part = TypeVar("Part", Widths, "Rules", "Formats")
ROLES = ("weight", "activation", "error", "gradient", "master", "momentum")
"""What a plan may give a format of its own."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How the roles of a layer are rounded and scaled, and how its sums end.

    `rounding` is that of errors, weight gradients and updates, `scale` the exponent rule of activations and errors,
    where the role's own is empty. Weights and gradients are known as a whole before they are stored and take their own
    maximum unless told otherwise. A normalization's scale and shift are weights; updates are masters and momentum.
    """

    rounding: str = "stochastic"
    scale: str = "delayed"
    weight_rounding: str = "nearest-even"
    activation_rounding: str = "nearest-even"
    error_rounding: str = ""
    gradient_rounding: str = ""
    update_rounding: str = ""
    weight_scale: str = "dynamic"
    activation_scale: str = ""
    error_scale: str = ""
    gradient_scale: str = "dynamic"
    weight_granularity: str = "per-tensor"
    accumulator: str = "wrap"

    def rounding_of(self, role: str) -> str:
        """Rounding of the role weight, activation, error, gradient or update."""
        return getattr(self, f"{role}_rounding") or self.rounding

    def scale_of(self, role: str) -> str:
        """Exponent rule of the role weight, activation, error or gradient."""
        return getattr(self, f"{role}_scale") or self.scale

    @property
    def per_channel(self) -> bool:
        """Whether each output channel's weights have an exponent of their own."""
        return self.weight_granularity == "per-channel"

    def priced(self, widths: Widths) -> Widths:
        """`widths` with what these rules cost: random numbers, and the alignment of channels; an accumulator of 0 bits
        gets the operands' usual width."""
        operand_bits = max(widths.weight_bits, widths.activation_bits, widths.error_bits)
        return dataclasses.replace(
            widths, accumulator_bits=widths.accumulator_bits or accumulator_bits(operand_bits),
            weight_alignment=ALIGNMENT_BITS if self.per_channel else 0,
            stochastic=tuple(role for role in STOCHASTIC_ROLES if self.rounding_of(role) == "stochastic"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Formats:
    """The number format of each role, by the names of `qtrain.formats.names`; widths are the role's own."""

    weight_format: str = names.FIXED
    activation_format: str = names.FIXED
    error_format: str = names.FIXED
    gradient_format: str = names.FIXED
    master_format: str = names.FIXED
    momentum_format: str = names.FIXED

    def of(self, role: str) -> str:
        """The format's name of the role weight, activation, error, gradient, master or momentum."""
        return str(getattr(self, f"{role}_format"))

    def widened(self, widths: Widths) -> Widths:
        """`widths` as these formats have them: some have a width of their own."""
        own: dict[str, Any] = {
            f"{role}_bits": names.width(self.of(role), getattr(widths, f"{role}_bits")) for role in ROLES
        }
        return dataclasses.replace(widths, norm_bits=names.width(self.activation_format, widths.norm_bits), **own)

    @property
    def unusual(self) -> str:
        """The roles that are no fixed point, such as "bfp weight, activation"; empty where all are."""
        others = dict.fromkeys(name for role in ROLES if (name := self.of(role)) != names.FIXED)
        return "; ".join(f"{name} {', '.join(r for r in ROLES if self.of(r) == name)}" for name in others)


@dataclass(frozen=True)
class NumberPlan:
    """Numbers of a training run. `layers` overrides single widths and rules by layer-name glob."""

    name: str = "fixed"
    widths: Widths = Widths()  # noqa: RUF009 - Widths is frozen
    rules: Rules = Rules()
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    formats: Formats = Formats()
    update: str = "sgd"

    @classmethod
    def fixed(
        cls, bits: int = 8, *, layers: Mapping[str, Mapping[str, Any]] | None = None, seed: int = 0, **rules: str
    ) -> NumberPlan:
        """Fixed point everywhere: weights, activations, errors and gradients at `bits`; 32 means float32."""
        name = "float32" if bits == 32 else "fixed"
        found = Rules(**rules)
        widths = Widths.uniform(bits)
        return cls(name, found.priced(widths) if name == "fixed" else widths, found, dict(layers or {}), seed)

    @classmethod
    def float32(cls) -> NumberPlan:
        """Plain float32: the simulator then computes exactly what PyTorch computes."""
        return cls(name="float32", widths=Widths.uniform(32))

    @property
    def floating(self) -> bool:
        return self.widths.floating

    def for_layer(self, name: str) -> Widths:
        """Widths of the layer `name`."""
        widths = self._changed(self.widths, name)
        if self.floating:
            return widths
        return self.formats_for(name).widened(self.rules_for(name).priced(widths))

    def rules_for(self, name: str) -> Rules:
        """Roundings and exponent rules of the layer `name`."""
        return self._changed(self.rules, name)

    def formats_for(self, name: str) -> Formats:
        """Formats of the layer `name`."""
        return self._changed(self.formats, name)

    def _changed(self, part: Part, name: str) -> Part:
        """`part` of the plan with what the layer's rules say of it."""
        known = {f.name for f in dataclasses.fields(part)}
        for changes in matching(name, self.layers):
            part = dataclasses.replace(part, **{key: v for key, v in changes.items() if key in known})
        return part
