"""How far a prediction may be off: the error class of a device, learned from the leave-one-out errors."""

from __future__ import annotations

from hwmodel import cores
from hwmodel.devices import Device

MEASURED = "measured"
"""The `basis` of a device whose own latencies were measured."""


def error_class(device: Device) -> str | None:
    """The expected error of latencies on a microcontroller; an accelerator's profile states its own, if any.

    A device measured itself errs like a left-out task, one of a measured core family like a left-out board, any other
    at least like a board predicted from another family.
    """
    if device.kind != "mcu":
        return device.texts.get("error_class")
    errors = cores.fitted_errors()
    core = device.texts["core"]
    if device.basis == MEASURED:
        return f"±{errors['task']:.0%}: measured on this board (error of a task left out)"
    if cores.fitted("core", core) or core == "cortex-m4":
        return f"±{errors['board']:.0%}: predicted from the {core} family (error of a board left out)"
    return f"±{errors['family']:.0%} or more: no {core} was measured (error of a family left out)"


def notes(device: Device, scope: str) -> list[str]:
    """What a reader of a bill must know about its basis."""
    found = []
    if device.kind == "mcu" and scope != "inference":
        found.append("training energy is an extrapolation: power measured or assumed for inference x predicted cycles")
    if device.assumed:
        found.append("rests on assumed constants: " + ", ".join(device.assumed))
    return found
