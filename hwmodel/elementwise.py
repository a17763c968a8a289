"""Kernels of the layers without a weight matrix: normalization, pooling, additions, activations, input and loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hwmodel.containers import container_bits
from hwmodel.operations import Op, quantize_charged_to
from hwmodel.work import Work

Rule = Callable[[Op], Iterator[Work]]


def _work(op: Op, kernel: str, units: float) -> Work:
    bits = op.widths.stored_error_bits if op.phase in ("error", "gradient") else op.widths.activation_bits
    return Work(kernel, op.report_phase, 0, units, sram_bytes=2 * units * container_bits(bits) / 8)


def _requantize(op: Op) -> Iterator[Work]:
    n = op.n_requantized
    if n:
        phase = quantize_charged_to(op.payer, op.phase)
        yield Work("requantize", phase, n, n, sram_bytes=4.0 * n)
        if ("activation" if op.phase == "forward" else op.phase) in op.widths.stochastic:
            yield Work("stochastic_rounding", phase, 0, n)


def _rule(*steps: tuple[str, Callable[[Op], float]]) -> Rule:
    """A rule that runs each named kernel on a number of units, then rounds what the Op rounds."""

    def rule(op: Op) -> Iterator[Work]:
        for kernel, units in steps:
            count = units(op)
            if count:
                yield _work(op, kernel, count)
        yield from _requantize(op)

    return rule


def _n_in(op: Op) -> float:
    return op.batch * op.layer.n_in


def _n_out(op: Op) -> float:
    return op.batch * op.layer.n_out


def _window(op: Op) -> float:
    """Elements that the pooling windows read."""
    return _n_out(op) * op.layer.kernel_height * op.layer.kernel_width


def _masked(op: Op) -> float:
    """Errors that pass a fused activation's mask."""
    return _n_out(op) if op.layer.activation != "none" else 0.0


def _fused(op: Op) -> float:
    return _n_out(op) if op.layer.activation != "none" else 0.0


def _of_batch(op: Op) -> float:
    """Elements whose batch statistics are taken; an uncertain instance uses the running ones."""
    return 0.0 if op.payer == "uncertain" else _n_out(op)


def _statistics(op: Op) -> float:
    """One sum and one sum of squares per element."""
    return 2 * _of_batch(op)


def _extrema(op: Op) -> float:
    """A maximum and a minimum: two comparisons per element, as pooling makes them."""
    return 2 * _of_batch(op)


def _instance_groups(op: Op) -> float:
    return op.batch * op.layer.groups


def _twice_out(op: Op) -> float:
    return 2 * _n_out(op)


def _branches(op: Op) -> float:
    """A fork sums the errors of two readers or more."""
    return _n_out(op)


def _channels(op: Op) -> float:
    return op.layer.out_channels


def _exponentials(op: Op) -> float:
    return _n_out(op) or _n_in(op)


RULES: dict[tuple[str, str], Rule] = {
    ("input", "forward"): _rule(("copy", _n_out)),
    ("batchnorm", "forward"): _rule(
        ("statistics", _statistics), ("reciprocal_root", _channels), ("normalize", _n_out), ("activation", _fused)
    ),
    # dx = gamma/sigma (dy - mean(dy) - xhat mean(dy xhat)): the two means are the gradients of shift and scale
    ("batchnorm", "error"): _rule(("mask", _masked), ("normalize", _twice_out)),
    ("batchnorm", "gradient"): _rule(("statistics", _twice_out)),
    ("rangenorm", "forward"): _rule(
        ("statistics", _of_batch),
        ("pool", _extrema),
        ("reciprocal_root", _channels),
        ("normalize", _n_out),
        ("activation", _fused),
    ),
    # the range's share reaches two elements a channel alone
    ("rangenorm", "error"): _rule(("mask", _masked), ("normalize", _n_out), ("scatter", _channels)),
    ("rangenorm", "gradient"): _rule(("statistics", _twice_out)),
    ("groupnorm", "forward"): _rule(
        ("statistics", _twice_out), ("reciprocal_root", _instance_groups), ("normalize", _n_out), ("activation", _fused)
    ),
    ("groupnorm", "error"): _rule(("mask", _masked), ("normalize", _twice_out)),
    ("groupnorm", "gradient"): _rule(("statistics", _twice_out)),
    ("frozennorm", "forward"): _rule(("normalize", _n_out), ("activation", _fused)),
    ("frozennorm", "error"): _rule(("mask", _masked), ("normalize", _n_out)),
    ("frozennorm", "gradient"): _rule(("statistics", _twice_out)),
    ("activation", "forward"): _rule(("activation", _n_out)),
    ("activation", "error"): _rule(("mask", _n_out)),
    ("add", "forward"): _rule(("add", _n_out), ("activation", _fused)),
    ("add", "error"): _rule(("mask", _masked), ("copy", _n_out)),
    ("fork", "forward"): _rule(),
    ("fork", "error"): _rule(("add", _branches)),
    ("maxpool", "forward"): _rule(("pool", _window)),
    ("maxpool", "error"): _rule(("copy", _n_in), ("scatter", _n_out)),
    ("avgpool", "forward"): _rule(("pool", _window)),
    ("avgpool", "error"): _rule(("copy", _n_in)),
    ("shortcut", "forward"): _rule(("copy", _n_out)),
    ("shortcut", "error"): _rule(("copy", _n_in)),
    ("loss", "forward"): _rule(("exponential", _exponentials)),
    ("loss", "error"): _rule(("subtract", _n_in)),
}
