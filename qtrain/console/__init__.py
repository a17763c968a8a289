"""What a person sees in a terminal: the progress of a run, and tables of results, bills and devices."""

from qtrain.console.bills import bill_lines, show_bills
from qtrain.console.lists import show_device, show_devices, show_recipes, show_verification
from qtrain.console.results import progress_display, show_result
from qtrain.console.words import kib, percent, say, si

__all__ = [
    "bill_lines",
    "kib",
    "percent",
    "progress_display",
    "say",
    "show_bills",
    "show_device",
    "show_devices",
    "show_recipes",
    "show_result",
    "show_verification",
    "si",
]
