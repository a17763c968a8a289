"""From an experiment to the things a run is made of: data, networks, filter, optimizer, stream."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwmodel.operations import Widths
from hwmodel.schedule import Schedule
from qtrain import data, engine, filters, models, pruners, recipes
from qtrain.data.drift import Drift
from qtrain.data.streams import Batches
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.plan import Formats, Rules
from qtrain.recipes import Recipe
from qtrain.training.adapt import pretrain
from qtrain.training.material import material, standardized, stream
from qtrain.training.rates import learning_rate
from qtrain.training.remarks import remarks
from qtrain.training.weights import prepare

MACS_WORTH_THREADS = 100_000_000
"""Forward MACs of a batch below which a second thread costs more than it saves (lenet5 at batch 64 has 27 million, and
is no faster on two)."""
_FILTER_SEED = 1
"""Added to the run's seed for the filter network's weights, so that they differ from the main network's."""


@dataclass
class Notices:
    """What went wrong in silence, each said once; with `strict` an error."""

    strict: bool = False
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Keep one line. Raises QtrainError if strict."""
        if self.strict:
            raise QtrainError(f"{line} (--strict)")
        if line not in self.lines:
            self.lines.append(line)


@dataclass
class Job:
    """Everything a run needs, built from its experiment."""

    experiment: Experiment
    net: QuantizedNetwork
    optimizer: FixedSGD
    notices: Notices
    filter: Any
    recipe: Recipe
    batches: Batches
    images: Tensor  # [n, C, H, W] float32, standardized
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    drift: Drift

    def evaluate(self, step: int) -> tuple[float | None, float]:
        """The recipe's accuracy and loss on the test set as it looks at `step` of the run."""
        return self.recipe.evaluate(self.net, self.drifted(self.test_images, step), self.test_labels)

    def drifted(self, images: Tensor, step: int) -> Tensor:
        """Images [n, C, H, W] as the device meets them at `step`."""
        return torch.from_numpy(self.drift.apply(images.numpy(), step))

    @property
    def schedule(self) -> Schedule:
        """How the main network is trained, for pricing."""
        optimizer = self.experiment.optimizer
        return self.net.schedule(
            momentum=optimizer.momentum > 0, weight_decay=optimizer.weight_decay > 0,
            extra_ram_bytes={**self.recipe.extra_ram_bytes(self.net), **self.filter.extra_ram_bytes()},
        )  # fmt: skip

    @property
    def filter_schedule(self) -> Schedule | None:
        """How the filter network is trained; None where the filter has none."""
        network: QuantizedNetwork | None = self.filter.network
        return None if network is None else network.schedule(momentum=self.experiment.filter.momentum > 0)


def number_plan(experiment: Experiment) -> NumberPlan:
    """The experiment's number formats."""
    numbers = experiment.numbers
    if numbers.plan == "float32":
        return NumberPlan.float32()
    given = dataclasses.asdict(numbers) | {"norm_bits": max(numbers.norm_bits, numbers.activation_bits)}
    rules = Rules(**{f.name: given[f.name] for f in dataclasses.fields(Rules)})
    widths = rules.priced(Widths(**{f.name: given[f.name] for f in dataclasses.fields(Widths) if f.name in given}))
    layers = {rule.glob: dict(rule.values) for rule in experiment.layers}
    formats = Formats(**{f.name: given[f.name] for f in dataclasses.fields(Formats)})
    widths = formats.widened(widths)
    return NumberPlan(numbers.plan, widths, rules, layers, experiment.seed, formats, numbers.update)


def build(experiment: Experiment) -> Job:
    """Load the data, build and quantize the networks. Raises QtrainError for anything that does not fit."""
    engine.use(experiment.run.engine)
    dataset = data.load(experiment.data.name, experiment.data.dir or None, experiment.data.val_split, experiment.seed)
    shape: Any = tuple(experiment.input_shape) or None
    info = models.info(experiment.model, shape, experiment.n_classes or None)
    recipes.check(experiment, info.task)
    given = material(experiment, dataset, info.input_shape, info.task == "reconstruct")
    if info.task == "classify":
        _check_outputs(given.n_classes, dataset.n_classes, experiment)
        info = models.info(experiment.model, shape, recipes.n_outputs(experiment, given.n_classes))
    test = standardized(dataset.test_images, info.input_shape, dataset)
    drift = Drift.of(experiment.stream, given.n_steps, experiment.seed)
    plan = number_plan(experiment)
    model = models.build(experiment.model, info.input_shape, info.n_classes, experiment.seed)
    prepare(model, info.input_shape, experiment, lambda: pretrain(model, info.input_shape, given, experiment))
    model.to(place(experiment))
    net = quantize(model, info.input_shape, plan, pruners.build(experiment), experiment.model)
    net.memory_format = torch.channels_last
    _set_threads(experiment, net.network.macs)
    net.choose_trained(experiment.train.layers, experiment.train.bias_only)
    if experiment.train.survival < 1:
        net.drop_blocks(experiment.train.survival)
    settings = experiment.optimizer
    optimizer = FixedSGD(net, settings.lr, settings.momentum, settings.weight_decay)
    notices = Notices(experiment.run.strict)
    for name in unused(net):
        notices.add(f"{name}: the model's forward never uses its parameters: not quantized, trained or priced")
    job = Job(
        experiment, net, optimizer, notices,
        filters.build(
            experiment, lambda: _filter_network(experiment, info.input_shape, plan, given.n_steps), notices.add
        ),
        recipes.build(experiment, given), stream(experiment, given.labels.numpy()),
        given.images, given.labels, test, torch.from_numpy(np.array(dataset.test_labels)), drift,
    )  # fmt: skip
    for line in remarks(experiment, net, job.filter.network):
        notices.add(line)
    return job


def place(experiment: Experiment) -> torch.device:
    """Where the networks are computed: on a GPU in whole float32, and with the same order of sums every time. Raises
    QtrainError where there is no such thing, or the recipe does not run there."""
    if not experiment.run.gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise QtrainError("PyTorch finds no CUDA GPU here; leave --gpu out")
    if experiment.recipe != "supervised":
        raise QtrainError(f"recipe {experiment.recipe} computes on the CPU; leave --gpu out")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    return torch.device("cuda")


def unused(net: QuantizedNetwork) -> list[str]:
    """Names of the modules with trainable parameters that belong to no layer of the traced network."""
    layers = tuple(layer.name for layer in net.network.layers)
    owners = {name.rpartition(".")[0] for name, value in net.model.named_parameters() if value.requires_grad}
    return sorted(o for o in owners if not any(o == layer or o.startswith(f"{layer}.") for layer in layers))


def _filter_network(
    experiment: Experiment, input_shape: tuple[int, int, int], plan: NumberPlan, n_steps: int
) -> tuple[QuantizedNetwork, FixedSGD]:
    """The filter's own network, in the main network's numbers but for its rules for single layers, and its
    optimizer."""
    settings = experiment.filter
    name = settings.network or models.default_filter(experiment.model)
    model = models.build(name, input_shape, 2, experiment.seed + _FILTER_SEED).to(place(experiment))
    network = quantize(model, input_shape, dataclasses.replace(plan, layers={}), name=name)
    filters.start_undecided(network)
    network.memory_format = torch.channels_last
    rate = partial(learning_rate, settings, n_steps=n_steps)
    return network, FixedSGD(network, rate, settings.momentum, payer="filter")


def _set_threads(experiment: Experiment, macs: int) -> None:
    """As many threads as asked for; by default one where a step is too small to share out."""
    if experiment.run.threads:
        torch.set_num_threads(experiment.run.threads)
    elif experiment.train.batch_size * macs < MACS_WORTH_THREADS:
        torch.set_num_threads(1)


def _check_outputs(n_classes: int, in_data: int, experiment: Experiment) -> None:
    """The model must have an output for every class of the data."""
    if n_classes < in_data:
        raise QtrainError(
            f"model {experiment.model} has {n_classes} outputs, data {experiment.data.name} {in_data} classes; "
            f"give --classes {in_data}"
        )
