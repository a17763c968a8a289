"""Instructions and cycles of the C kernels on a Cortex-M4 (QEMU and a timing table) against the model.

Needs Debian's gcc-arm-none-eabi and qemu-system-arm (7.2 or newer) and a C compiler.
Run: python benchmarks/kernels/arm.py
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from model import (
    FUNCTIONS_OUTSIDE,
    HELD_OUT,
    PASSES,
    Case,
    predicted_cycles,
    print_errors,
    print_head,
    print_row,
)

HERE = Path(__file__).parent


def main() -> None:
    """Every held-out case, pass and kind of kernel against the model."""
    with tempfile.TemporaryDirectory() as name:
        measure = measurer(Path(name))
        print_head()
        errors = []
        for kernels in ("simd", "plain"):
            for case in HELD_OUT:
                for phase in case.passes:
                    cycles = measure(case, phase, kernels)
                    model = predicted_cycles(case, phase, "cortex-m4", kernels)
                    print_row(f"cortex-m4 {kernels}", case, phase, cycles, model)
                    errors.append(model / cycles - 1)
        print_errors(errors)


def measurer(folder: Path) -> Callable[[Case, str, str], int]:
    """Cycles of one pass of a case by one kind of kernel, on a counting emulator built in `folder`."""
    plugin = folder / "count.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", plugin, HERE / "count_plugin.c"], check=True)
    return lambda case, phase, kernels: measured(build(case, PASSES.index(phase), kernels, folder), plugin)[1]


def build(case: Case, index: int, kernels: str, folder: Path) -> Path:
    """The image that runs one pass of one case."""
    image = folder / "kernel.elf"
    sources = [HERE / name for name in ("arm_start.c", "main.c", f"{kernels}.c", "update.c")]
    subprocess.run(
        ["arm-none-eabi-gcc", "-O3", "-mcpu=cortex-m4", "-mthumb", "-nostartfiles", "--specs=nosys.specs", "-w",
         "-Wl,--no-warn-rwx-segments", f"-DCASE={case.initializer}", f"-DPASS={index}", "-T", HERE / "arm.ld",
         *sources, "-o", image],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return image


def measured(image: Path, plugin: Path) -> tuple[int, int]:
    """Instructions and cycles of the kernels of an image."""
    command = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-plugin", str(plugin),
               "-d", "plugin", "-kernel", str(image)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    counts = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("count ")]
    rows = [(int(n), int(cycles)) for name, n, cycles in counts if name not in FUNCTIONS_OUTSIDE]
    return sum(n for n, _ in rows), sum(cycles for _, cycles in rows)


if __name__ == "__main__":
    main()
