"""How far a prediction may be off: the error class of a device, learned from the leave-one-out errors."""

from __future__ import annotations

from hwmodel import cores
from hwmodel.devices import Device


def error_class(device: Device, scope: str = "inference") -> str | None:
    """The expected error of latencies on a microcontroller; an accelerator's profile states its own, if any.

    A device measured with these kernels errs like a left-out task, one of a measured core family like a left-out
    board, any other at least like a board predicted from another family. Backward passes were checked against kernels
    alone, on no board: where a `scope` has any, the class says that it is the forward pass's.
    """
    if device.kind != "mcu":
        return device.texts.get("error_class")
    return _latency_class(device) + ("" if scope == "inference" else "; backward passes measured on no board")


def _latency_class(device: Device) -> str:
    errors = cores.fitted_errors()
    core = device.texts["core"]
    if is_measured(device):
        return f"±{errors['task']:.0%}: measured on this board with these kernels (error of a task left out)"
    if cores.fitted("core", core) or core == "cortex-m4":
        return f"±{errors['board']:.0%}: predicted from the {core} family (error of a board left out)"
    return f"±{errors['family']:.0%} or more: no {core} was measured (error of a family left out)"


def is_measured(device: Device) -> bool:
    """Whether this board ran MLPerf Tiny with the kernels chosen."""
    return device.texts.get("kernels") in cores.measured_libraries(_board(device))


def _board(device: Device) -> str:
    """The board of a device at any clock (hwmodel.devices.load)."""
    return device.name.partition("@")[0]


def basis(device: Device) -> str:
    """Where the cycles come from, for the kernels chosen."""
    if device.kind != "mcu":
        return device.basis
    kernels = device.texts["kernels"]
    if is_measured(device):
        return f"fitted to inferences measured on this board with {kernels}"
    if cores.measured_libraries(_board(device)):
        return f"fitted to inferences measured on this board with other kernels than {kernels}"
    return device.basis


def notes(device: Device, scope: str) -> list[str]:
    """What a reader of a bill must know about its basis."""
    found = []
    if device.kind == "mcu" and scope != "inference":
        found.append("backward passes rest on kernel measurements of a few convolutions, not on this board's")
        found.append("training energy is an extrapolation: power of inference x predicted cycles")
    if device.kind == "mcu" and "asked" in device.constants["clock_hz"].source:
        found.append("power and flash wait states at this clock are scaled from those of the top clock")
    if device.assumed:
        found.append("rests on assumed constants: " + ", ".join(device.assumed))
    return found
