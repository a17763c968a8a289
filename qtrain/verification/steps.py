"""The simulator held against the integer reference: the same steps on the same data, every stored tensor compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwmodel.operations import MAC_KINDS, NORM_KINDS, Layer
from qtrain import data, models
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.formats.fixed import FixedTensor
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.channels import ChannelTensor
from qtrain.layers.exact import CARRIER, FLOAT64
from qtrain.layers.exactness import inexact, not_verifiable
from qtrain.layers.graph import trace
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.probe import convolution_is_exact
from qtrain.reference import Engine
from qtrain.reference.layout import Sgd
from qtrain.reference.numbers import Stored
from qtrain.verification.observe import Key, buffers, build_engine, exact_pixels, simulate

PASSES = ("forward", "error", "gradient", "update")
SGD = Sgd(lr=0.05, momentum=0.9, weight_decay=1e-4)
"""Constants with long mantissas, so that every term of the update counts."""


@dataclass
class Comparison:
    """Elements and mismatches of each (layer, pass), and the first tensor that differed."""

    elements: dict[tuple[str, str], int] = field(default_factory=dict)
    mismatches: dict[tuple[str, str], int] = field(default_factory=dict)
    first: str | None = None

    def add(self, step: int, key: Key, simulated: FixedTensor | None, reference: Stored | None) -> None:
        """Compare one tensor; one that only one side stored counts as wholly different."""
        layer, which, tensor = key
        if simulated is None or reference is None:
            there = simulated.values.numel() if simulated is not None else reference.codes.size  # type: ignore[union-attr]
            wrong = there
        else:
            there = reference.codes.size
            wrong = _differing(simulated, reference)
        place = (layer, which)
        self.elements[place] = self.elements.get(place, 0) + there
        self.mismatches[place] = self.mismatches.get(place, 0) + wrong
        if wrong and self.first is None:
            self.first = f"step {step}, {layer}, {which}, {tensor}: {wrong} of {there}"


def _differing(simulated: FixedTensor, reference: Stored) -> int:
    """Elements whose value differs; all where shape or exponent do (the optimizer keeps no exponent of momentum)."""
    exponents: Any = simulated.exponent
    if isinstance(simulated, ChannelTensor) and simulated.exponents is not None:
        exponents = simulated.exponents.numpy()
    alike = exponents is None or np.array_equal(exponents, np.ravel(reference.exponent).squeeze())
    if simulated.values.numel() != reference.codes.size or not alike:
        return int(reference.codes.size)
    expected = np.ldexp(reference.codes.astype(np.float64), reference.exponent)
    return int((simulated.values.detach().double().flatten().numpy() != expected.ravel()).sum())


def verify(experiment: Experiment, steps: int = 3, batch: int = 8, sgd: Sgd = SGD) -> dict[str, Any]:
    """Train the experiment's model, with its weights and normalizations, in its numbers, on its data, for `steps`
    steps of `batch` instances each, in the simulator and in the reference.

    Numbers without an integer definition give {verifiable: False, reason, elements: 0, ...}, others {model, numbers,
    bits, steps, batch, elements, mismatches, first_mismatch, convolution_exact, layers: [{layer, passes: {pass:
    {elements, mismatches, accumulator_bits, accumulator_overflows}}, assurance, accumulator_bits_available}]}; the
    accumulator's numbers, needed and available, for conv and linear layers alone.
    Raises QtrainError for a model or data that does not exist.
    """
    model, numbers = experiment.model, experiment.numbers
    info = models.info(model)
    if info.task != "classify":
        raise QtrainError(f"model {model} reconstructs its input; only softmax cross-entropy has an integer definition")
    dataset = data.load(experiment.data.name, experiment.data.dir or None)
    if info.n_classes < dataset.n_classes:
        info = models.info(model, n_classes=dataset.n_classes)
    module = models.build(model, info.input_shape, info.n_classes, experiment.seed)
    from qtrain.training.setup import number_plan, standardized  # the loop's own numbers and preparation of images
    from qtrain.training.weights import prepare

    prepare(module, info.input_shape, experiment)
    take = np.arange(steps * batch) % len(dataset.train_labels)
    pixels = standardized(dataset.train_images[take], info.input_shape, dataset)
    labels = torch.from_numpy(dataset.train_labels[take].copy())
    report = verify_module(
        module,
        info.input_shape,
        number_plan(experiment),
        list(zip(pixels.split(batch), labels.split(batch), strict=True)),
        sgd,
        model,
    )
    bits = numbers.weight_bits
    return {"model": model, "numbers": numbers.plan, "bits": bits, "steps": steps, "batch": batch, **report}


def verify_module(
    module: torch.nn.Module, input_shape: tuple[int, ...], plan: NumberPlan, batches: Sequence[tuple[Tensor, ...]],
    sgd: Sgd = SGD, name: str = "model", train: str = "all",
) -> dict[str, Any]:  # fmt: skip
    """`verify` for a module of your own: `batches` of pixels [n, C, H, W], labels [n] and, where they are
    part of a larger batch, their rows in it [n]; `train` globs of layers."""
    net = quantize(module, input_shape, plan, name=name)
    if reason := not_verifiable(plan, net.network.layers):
        return _unverified(net, reason)
    net.choose_trained(train)
    if net.trained_channels:
        raise QtrainError("verify proves layers whose channels all train; leave out the share in --train")
    if plan.update == "shift":
        sgd = Sgd(sgd.lr, shift=True)
    optimizer = FixedSGD(net, sgd.lr, sgd.momentum, sgd.weight_decay)
    reference: dict[Key, Stored] = {}
    engine = build_engine(net, trace(module, input_shape, name)[0], optimizer, reference)
    compared = Comparison()
    carried: dict[tuple[str, str], set[str]] = {}
    for index, (x, labels, *rest) in enumerate(batches):
        rows = rest[0] if rest else None
        simulated = simulate(net, optimizer, x, labels, index, rows)
        reference.clear()
        engine.step(index, exact_pixels(x), labels.numpy(), sgd, None if rows is None else rows.numpy())
        for key in dict.fromkeys([*simulated, *reference]):
            compared.add(index, key, simulated.get(key), reference.get(key))
        _compare_statistics(compared, index, net, engine)
        for unit in net.units:
            for which, how in getattr(unit, "carried", {}).items():
                carried.setdefault((unit.name, which), set()).add(how)
    return _report(net, engine, compared, carried)


def _compare_statistics(compared: Comparison, step: int, net: QuantizedNetwork, engine: Engine) -> None:
    """Running means and variances, exact fractions against float32 buffers."""
    for name, held in engine.statistics.items():
        module = net.model.get_submodule(name)
        for tensor, (buffer, expected) in zip(
            ("mean", "variance"), zip(buffers(module), held, strict=True), strict=True
        ):
            wrong = sum(Fraction(a) != b for a, b in zip(buffer.double().tolist(), expected, strict=True))
            place = (name, "forward")
            compared.elements[place] = compared.elements.get(place, 0) + len(expected)
            compared.mismatches[place] = compared.mismatches.get(place, 0) + wrong
            if wrong and compared.first is None:
                compared.first = f"step {step}, {name}, forward, running {tensor}: {wrong} of {len(expected)}"


def _report(
    net: QuantizedNetwork, engine: Engine, compared: Comparison, carried: dict[tuple[str, str], set[str]]
) -> dict[str, Any]:
    rows = []
    for layer in net.network.layers:
        passes = {}
        for which in PASSES:
            place = (layer.name, which)
            if place in compared.elements:
                passes[which] = {"elements": compared.elements[place], "mismatches": compared.mismatches[place]}
                if place in engine.needed_bits:
                    passes[which]["accumulator_bits"] = engine.needed_bits[place]
                    passes[which]["accumulator_overflows"] = engine.overflows[place]
        row: dict[str, Any] = {"layer": layer.name, "passes": passes, "assurance": _assurance(layer, passes, carried)}
        if layer.kind in MAC_KINDS:
            row["accumulator_bits_available"] = net.plan.for_layer(layer.name).accumulator_bits
        rows.append(row)
    return {
        "verifiable": True,
        "elements": sum(compared.elements.values()),
        "mismatches": sum(compared.mismatches.values()),
        "first_mismatch": compared.first,
        "convolution_exact": convolution_is_exact(),
        "layers": rows,
    }


def _unverified(net: QuantizedNetwork, reason: str) -> dict[str, Any]:
    """The report of numbers that nothing can be compared with: per layer what stands in the way."""
    why = inexact(net.plan, net.network.layers)
    rows = [
        {"layer": layer.name, "passes": {}, "assurance": f"not exact: {why.get(layer.name, 'reads what is not')}"}
        for layer in net.network.layers
    ]
    return {"verifiable": False, "reason": reason, "elements": 0, "mismatches": 0, "layers": rows}


def _assurance(layer: Layer, passes: Iterable[str], carried: dict[tuple[str, str], set[str]]) -> str:
    """How the layer's sums are kept exact, in words."""
    if layer.kind in MAC_KINDS:
        parts = []
        for which in passes:
            hows = carried.get((layer.name, which), set()) - {CARRIER}
            if (layer.name, which) in carried:
                worst = FLOAT64 if FLOAT64 in hows else max(hows, default="")
                parts.append(f"{which}: fallback, {worst}" if worst else f"{which}: certificate")
        return "; ".join(parts)
    if layer.kind in NORM_KINDS:
        return "certificate: channel sums in float64, multiply-adds within the carrier by construction"
    if layer.kind in ("maxpool", "shortcut", "activation"):
        return "certificate: codes are copied"
    return "certificate: few-term sums in float64 or int64"
