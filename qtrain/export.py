"""Trained networks as ONNX: rebuilt of Brevitas layers that hold the run's exponents, written by Brevitas' exporters.

Every stored tensor becomes a quantizer with the scale 2^exponent of the run: QuantIdentity for images, sums and logits,
QuantReLU behind a ReLU, the weight quantizer of QuantConv2d and QuantLinear. A bias is the number the accumulator
holds: a whole multiple of the products' step. A normalization is folded to what its integer arithmetic gives at
inference, one multiplication and one addition a channel; a mean over the image is its sum times round(2^16/k) 2^-16.
At widths up to 8 bits all of it is exact in float32, in any runtime that computes what the file says, but for sums
beyond 2^24 and means over a number of values that is no power of two: these may move a stored code by one. A model
built of Brevitas layers is written as it is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.store import Run

FORMATS = ("qcdq", "qonnx")
MAX_QCDQ_BITS = 8
"""ONNX' QuantizeLinear has 8-bit codes; narrower ones are clipped."""
CHUNK = 256
"""Images compared at a time."""
OPSET = 18
"""The oldest operator set PyTorch's exporter writes without converting."""


def export(run: str | Path, fmt: str = "qcdq", path: str | Path | None = None) -> Path:
    """Write the trained network of the run in folder `run` as ONNX; returns the file's path.

    fmt: "qcdq" (standard operators QuantizeLinear, Clip, DequantizeLinear: any runtime) or "qonnx" (QONNX's Quant
    nodes, any width). path: the file; default model.<fmt>.onnx in the run's folder. The input is a batch of images
    [n, C, H, W] as the network reads them (standardized), the output the logits [n, classes]. Raises QtrainError for
    an unfinished run, a float32 one, widths the format lacks, and where the extra `export` is not installed.
    """
    if fmt not in FORMATS:
        raise QtrainError(f"format {fmt!r}: must be one of {', '.join(FORMATS)}")
    folder = Run.open(run)
    net = trained_network(folder)
    target = Path(path) if path is not None else folder.path / f"model.{fmt}.onnx"
    from qtrain.layers.export import exportable

    other = {formats for layer in net.network.layers if (formats := net.plan.formats_for(layer.name).unusual)}
    if other and not net.native:
        raise QtrainError(f"{run}: only fixed point can be exported, the run has {'; '.join(sorted(other))}")
    model = net.model if net.native else exportable(net)
    widest = max((q.format.bits for n, q in net.quantizers().items() if n.endswith((".weight", ".output"))), default=0)
    if fmt == "qcdq" and widest > MAX_QCDQ_BITS:
        raise QtrainError(f"format qcdq has at most {MAX_QCDQ_BITS} bits, the run {widest}; use qonnx")
    write(model, net.input_shape, fmt, target)
    return target


def trained_network(folder: Run) -> Any:
    """The run's main network (a QuantizedNetwork) with its final weights and exponents."""
    import numpy as np
    import torch

    from qtrain import models
    from qtrain.layers import quantize
    from qtrain.training.setup import number_plan
    from qtrain.training.weights import choose_norms

    if folder.result() is None:
        raise QtrainError(f"{folder.path}: the run is not finished; continue it with qtrain simulate --resume")
    experiment, numbers = folder.experiment, folder.numbers()
    plan = number_plan(experiment)
    if plan.floating:
        raise QtrainError(f"{folder.path}: trained in float32, there is nothing quantized to export")
    if experiment.train.survival < 1:
        raise QtrainError(f"{folder.path}: its blocks' branches are multiplied by their survival: not exported")
    shape = tuple(numbers["input_shape"])
    model = models.build(experiment.model, shape, numbers["n_outputs"], experiment.seed)
    choose_norms(model, shape, experiment)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in folder.weights().items()})
    net = quantize(model, shape, plan, name=experiment.model)
    net.load_points(numbers["points"])
    return net


def write(model: Any, input_shape: tuple[int, ...], fmt: str, path: Path) -> None:
    """Export a module of Brevitas layers for images [n, *input_shape], n free."""
    import torch

    try:
        import onnx  # noqa: F401
        import onnxoptimizer  # noqa: F401 - Brevitas' exporters ask for it
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise QtrainError(f"{error.name} is missing; install the extra: pip install 'qtrain[export]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages Brevitas would use for other things
        from brevitas.export import export_onnx_qcdq, export_qonnx
    writer: Callable[..., Any] = export_onnx_qcdq if fmt == "qcdq" else export_qonnx
    # QONNX' tools want fixed shapes; two images keep the exporter from taking the batch size for a constant
    n, shapes = (1, None) if fmt == "qonnx" else (2, ({0: torch.export.Dim("n")},))
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx"):
            warnings.simplefilter("ignore")  # of the exporters about each other
            writer(
                model.eval(), args=torch.zeros(n, *input_shape), export_path=str(path), dynamo=True, optimize=True,
                opset_version=OPSET, input_names=["images"], output_names=["logits"], dynamic_shapes=shapes,
                external_data=False, keep_initializers_as_inputs=False, verbose=False,
            )  # fmt: skip
    except (RuntimeError, AssertionError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise QtrainError(f"{path}: Brevitas can't write this network as {fmt}: {reason}") from error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's warnings off stderr."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class Agreement:
    """How a file's outputs compare with the simulator's on `n_instances` images."""

    n_instances: int
    n_same_predictions: int
    n_same_logits: int  # instances whose logits are all equal, bit for bit


def compare(run: str | Path, path: str | Path, n_instances: int | None = None) -> Agreement:
    """Run an exported file on the run's test images (the first `n_instances`, or all) beside the simulator.

    QCDQ files run in onnxruntime, QONNX files in qonnx's own executor, one image at a time.
    """
    import torch

    from qtrain.training.setup import build

    folder = Run.open(run)
    net = trained_network(folder)
    images = build(folder.experiment).test_images[:n_instances]
    execute = _onnxruntime(str(path)) if _is_standard(str(path)) else _qonnx(str(path))
    same_predictions = same_logits = 0
    for batch in images.split(CHUNK):
        with torch.no_grad():
            expected = net.run(batch, training=False, record=False)[0].values.float()
        logits = torch.from_numpy(execute(batch.numpy()))
        same_predictions += int((logits.argmax(1) == expected.argmax(1)).sum())
        same_logits += int((logits == expected).all(1).sum())
    return Agreement(len(images), same_predictions, same_logits)


def _is_standard(path: str) -> bool:
    import onnx

    return all(node.domain in ("", "ai.onnx") for node in onnx.load(path).graph.node)


def _onnxruntime(path: str) -> Callable[[Any], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _qonnx(path: str) -> Callable[[Any], Any]:
    import numpy as np
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    model = ModelWrapper(path)
    return lambda images: np.concatenate([execute_onnx(model, {"images": i[None]})["logits"] for i in images])
