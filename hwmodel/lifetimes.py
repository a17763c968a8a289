"""Which tensors of a training step are alive when: tenants of the memory, from the order of the schedule's
passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hwmodel.network import Network
from hwmodel.operations import MAC_KINDS, NORM_KINDS, Layer, Widths
from hwmodel.passes import Passes
from hwmodel.schedule import Schedule
from hwmodel.storage import Packing, image_bytes, mask_bytes, pool_index_bytes, statistics_bytes, value_bits

SAVED = "saved activations"
"""Role of the inputs that a weight gradient, a normalization or the loss reads in the backward pass."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tensor that occupies `n_bytes` from moment `first` to moment `last`, both included."""

    name: str
    role: str
    n_bytes: int
    first: int
    last: int

    def to_json(self) -> dict[str, str | int]:
        """Plain data without the moments."""
        return {"name": self.name, "role": self.role, "n_bytes": self.n_bytes}


class Step:
    """Lifetimes of one network's tensors in a step.

    `n_forward` instances are run forward, `n_backward` of them backward (fewer where a filter's own batch
    is thinned out after its decision). `images` are the moments between which the raw input waits,
    `codes_from` the moment from which the weight codes exist if that is before their layer's own forward
    pass.
    """

    def __init__(
        self,
        schedule: Schedule,
        passes: Passes,
        n_forward: int,
        n_backward: int,
        packing: Packing,
        images: tuple[int, int],
        codes_from: int | None = None,
    ) -> None:
        self.schedule, self.passes, self.packing = schedule, passes, packing
        self.n_forward, self.n_backward = n_forward, n_backward
        self.images, self.codes_from = images, codes_from
        self.layers = {layer.name: layer for layer in schedule.network.layers}
        self.readers = readers(schedule.network)
        self.arrivals: dict[str, list[Layer]] = {layer.name: [] for layer in schedule.network.layers}
        for layer in schedule.network.layers:
            for name in layer.inputs:
                self.arrivals[name].append(layer)
        self.trained = schedule.trained
        self.forward_end = passes.forward_end

    def widths(self, name: str) -> Widths:
        return self.schedule.layer_widths.get(name, self.schedule.widths)

    def tenants(self, prefix: str = "") -> Iterator[Tenant]:
        """All tensors of the step but the working buffers; `prefix` is put before names and roles."""
        for layer in self.schedule.network.layers:
            for tenant in (*self.parameters(layer), *self.values(layer), *self.errors(layer)):
                yield (replace(tenant, name=prefix + tenant.name, role=prefix + tenant.role) if prefix else tenant)

    def parameters(self, layer: Layer) -> Iterator[Tenant]:
        """Master copy, momentum, weight codes, gradient and running statistics of a trained layer."""
        if layer.name not in self.trained:
            return
        w, pack, start, end = self.widths(layer.name), self.packing.bytes, 0, self.passes.end
        n_biases, n_weights = layer.n_parameters - layer.n_weights, 0
        if self.schedule.trains(layer.name) == "all":
            chosen = self.schedule.trained_channels.get(layer.name, layer.out_channels)
            n_weights = layer.n_weights // layer.out_channels * chosen
            n_biases = n_biases // layer.out_channels * chosen
        n_trained = n_weights + n_biases
        yield Tenant(layer.name, "master weights", pack(n_trained, w.master_bits), start, end)
        if self.schedule.momentum:
            yield Tenant(layer.name, "momentum", pack(n_trained, w.momentum_bits), start, end)
        if layer.kind in NORM_KINDS:
            yield Tenant(layer.name, "statistics", statistics_bytes(layer, w, self.n_forward, self.packing), start, end)
        forward = self.passes.at("forward", layer.name)
        if forward is not None and not w.floating:  # float32 computes on the master itself
            error = self.passes.at("error", layer.name)
            bits = (w.gamma_bits, w.beta_bits) if layer.kind in NORM_KINDS else (w.weight_bits, w.accumulator_bits)
            codes = pack(n_weights, bits[0]) + pack(n_biases, bits[1])
            born = forward if self.codes_from is None else self.codes_from
            yield Tenant(layer.name, "weight codes", codes, born, forward if error is None else error)
        gradient, update = self.passes.at("gradient", layer.name), self.passes.at("update", layer.name)
        if gradient is not None and update is not None:
            yield Tenant(layer.name, "gradients", pack(n_trained, w.gradient_bits), gradient, update)

    def values(self, layer: Layer) -> Iterator[Tenant]:
        """The layer's output until its last reader, its ReLU mask and its pooling indices; the raw input
        image."""
        name, w = layer.name, self.widths(layer.name)
        first = self.passes.at("forward", name)
        if first is None or layer.kind == "fork":
            return
        if layer.kind == "input":
            yield Tenant(name, "images", image_bytes(self.n_forward * layer.n_out), *self.images)
        last, role = first, "activations"
        for reader in self.readers[name]:
            moment = self.read(reader)
            role = SAVED if moment > self.forward_end else role
            last = max(last, moment)
        bits = value_bits(layer, w)
        backward = self.passes.backward(name)
        if backward and (layer.activation != "none" or layer.kind == "activation"):
            if role == SAVED:  # the sign of a saved output is its mask
                last = max(last, backward[0])
            else:
                yield from self.thinned(name, "relu masks", mask_bytes, layer.n_out, first, backward[0])
        if backward and layer.kind == "maxpool":
            yield from self.thinned(
                name, "pool indices", lambda n: pool_index_bytes(n, layer), layer.n_out, first, backward[-1]
            )
        yield from self.thinned(name, role, lambda n: self.packing.bytes(n, bits), layer.n_out, first, last)

    def read(self, reader: Layer) -> int:
        """Last moment at which `reader` reads its input value: its forward pass, or a backward pass that
        needs it."""
        forward = self.passes.at("forward", reader.name)
        saved: int | None = None
        if (reader.kind in MAC_KINDS and self.schedule.trains(reader.name) == "all") or reader.kind == "frozennorm":
            saved = self.passes.at("gradient", reader.name)
        elif (reader.kind in NORM_KINDS and reader.name in self.trained) or reader.kind == "loss":
            saved = max(self.passes.backward(reader.name), default=None)
        return max((moment for moment in (forward, saved) if moment is not None), default=0)

    def thinned(
        self, name: str, role: str, n_bytes: Callable[[int], int], n_elements: int, first: int, last: int
    ) -> Iterator[Tenant]:
        """A tensor of the forward batch that keeps only the backward batch's part after the forward pass."""
        if last > self.forward_end and self.n_backward < self.n_forward:
            yield Tenant(name, role, n_bytes(self.n_forward * n_elements), first, self.forward_end)
            first, n = self.forward_end + 1, self.n_backward
        else:
            n = self.n_forward
        yield Tenant(name, role, n_bytes(n * n_elements), first, last)

    def errors(self, layer: Layer) -> Iterator[Tenant]:
        """The errors that the layer's error pass writes, one for each input that needs it.

        An addition writes nothing: both its inputs read its own error map. A fork sums into one of its
        arrivals.
        """
        first = self.passes.at("error", layer.name)
        if first is None or layer.kind in ("add", "fork"):
            return
        for name in layer.inputs:
            source = self.layers[name]
            n_bytes = self.packing.bytes(self.n_backward * source.n_out, self.widths(layer.name).stored_error_bits)
            yield Tenant(name, "errors", n_bytes, first, max(first, self.error_read(source, layer)))

    def error_read(self, layer: Layer, writer: Layer) -> int:
        """Last moment at which the error that `writer` sent to `layer` is read."""
        own = max(self.passes.backward(layer.name), default=0)
        if layer.kind == "fork":
            arrivals = self.arrivals[layer.name]
            sum_holder = next((reader for reader in arrivals if reader.kind != "add"), arrivals[0])
            if writer.name != sum_holder.name:
                return own
        elif layer.kind != "add":
            return own
        return max([own, *(self.error_read(self.layers[name], layer) for name in layer.inputs)])


def readers(network: Network) -> dict[str, list[Layer]]:
    """The layers that read each layer's value; a fork passes its input on and owns no tensor."""
    found: dict[str, list[Layer]] = {layer.name: [] for layer in network.layers}
    owner: dict[str, str] = {}
    for layer in network.layers:
        sources = [owner.get(name, name) for name in layer.inputs]
        if layer.kind == "fork":
            owner[layer.name] = sources[0]
        else:
            for name in sources:
                found[name].append(layer)
    return found
