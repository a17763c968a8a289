"""A run's whole state as tensors and plain data: what a checkpoint holds, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtrain.layers import QuantizedNetwork
from qtrain.layers.exactness import inexact
from qtrain.layers.optimizer import FixedSGD
from qtrain.training.setup import Job


def take(job: Job) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors, state) of weights, momentum, exponents, filter, recipe and recorded passes."""
    tensors = _network_tensors("main", job.net, job.optimizer)
    state: dict[str, Any] = {
        "main": _network_state(job.net, job.optimizer),
        "filter": job.filter.state(),
        "recipe": job.recipe.state(),
    }
    if job.filter.network is not None:
        tensors |= _network_tensors("filter", job.filter.network, job.filter.optimizer)
        state["filter_network"] = _network_state(job.filter.network, job.filter.optimizer)
    tensors |= {f"recipe.own.{name}": value for name, value in job.recipe.tensors().items()}
    return {name: _array(value) for name, value in tensors.items()}, state


def put(job: Job, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
    """Restore what `take` took."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    _restore("main", job.net, job.optimizer, tensors, state["main"])
    job.filter.load_state(state["filter"])
    job.recipe.load_state(state["recipe"])
    job.recipe.load_tensors(_under("recipe.own.", tensors))
    if job.filter.network is not None:
        _restore("filter", job.filter.network, job.filter.optimizer, tensors, state["filter_network"])


def weights(job: Job) -> dict[str, np.ndarray]:
    """The main network's parameters and statistics by their PyTorch names."""
    return {name: _array(value) for name, value in job.net.model.state_dict().items()}


def numbers(job: Job) -> dict[str, Any]:
    """What the weights compute with: the main network's input shape, outputs and quantization points, and the layers
    whose arithmetic is not exact, with the reason."""
    net = job.net
    layers = net.network.layers
    return {
        "input_shape": net.input_shape, "n_outputs": layers[-1].out_channels,
        "points": net.numbers_state()["points"], "not_exact": inexact(net.plan, layers),
    }  # fmt: skip


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().contiguous().numpy()


def _network_tensors(prefix: str, net: QuantizedNetwork, optimizer: FixedSGD) -> dict[str, Tensor]:
    tensors = {f"{prefix}.model.{name}": value for name, value in net.model.state_dict().items()}
    return tensors | {f"{prefix}.momentum.{name}": value for name, value in optimizer.tensors().items()}


def _network_state(net: QuantizedNetwork, optimizer: FixedSGD) -> dict[str, Any]:
    counts = [[*key, *tally] for key, tally in net.counts.items()]
    return {"numbers": net.numbers_state(), "optimizer": optimizer.state(), "counts": counts}


def _restore(
    prefix: str, net: QuantizedNetwork, optimizer: FixedSGD, tensors: dict[str, Tensor], state: Mapping[str, Any]
) -> None:
    net.model.load_state_dict(_under(f"{prefix}.model.", tensors))
    momentum = _under(f"{prefix}.momentum.", tensors)
    optimizer.load(state["optimizer"], {name: value.to(net.place) for name, value in momentum.items()})
    net.load_numbers_state(state["numbers"])
    net.counts.clear()
    for index, phase, payer, batch, kept, count, density_sum in state["counts"]:
        net.counts[(index, phase, payer, batch, kept)] = [count, density_sum]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
