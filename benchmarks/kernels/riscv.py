"""Exact cycles of the plain C kernels on CV32E40P (RV32IM) in RTL simulation against the model.

Needs Debian's verilator (5.006 or newer), gcc-riscv64-unknown-elf and g++, and the core's source:
pip install --no-deps pythondata-cpu-cv32e40p. Run: python benchmarks/kernels/riscv.py
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from model import HELD_OUT, PASSES, Case, predicted_cycles, print_errors, print_head, print_row

HERE = Path(__file__).parent
OUTSIDE = ("top.sv", "tb_wrapper.sv", "tracer_pkg.sv")


def main() -> None:
    """Every held-out case and pass against the model."""
    with tempfile.TemporaryDirectory() as name:
        measure = measurer(Path(name))
        print_head()
        errors = []
        for case in HELD_OUT:
            for phase in case.passes:
                cycles = measure(case, phase)
                model = predicted_cycles(case, phase, "rv32imc", "plain")
                print_row("cv32e40p plain", case, phase, cycles, model)
                errors.append(model / cycles - 1)
        print_errors(errors)


def measurer(folder: Path) -> Callable[[Case, str], int]:
    """Cycles of one pass of a case, on a simulator built in `folder`."""
    simulator = build_simulator(folder)

    def cycles(case: Case, phase: str) -> int:
        build(case, PASSES.index(phase), folder)
        return measured(simulator, folder)

    return cycles


def build_simulator(folder: Path) -> Path:
    """Verilated CV32E40P with single-cycle memory."""
    spec = find_spec("pythondata_cpu_cv32e40p")
    if spec is None or spec.origin is None:
        raise SystemExit("error: pip install --no-deps pythondata-cpu-cv32e40p first")
    rtl = Path(spec.origin).parent / "system_verilog" / "rtl"
    listed = (rtl.parent / "cv32e40p_manifest.flist").read_text().splitlines()
    sources = [line.replace("${DESIGN_RTL_DIR}", str(rtl)) for line in listed if line.startswith("${")]
    command = ["verilator", "--cc", "--exe", "--build", "-O3", "--top-module", "soc", "-Wno-fatal", "-Wno-lint",
               "-Wno-style", "-Wno-BLKANDNBLK", "-Wno-UNOPTFLAT", f"-I{rtl}/include",
               *(source for source in sources if not source.endswith(OUTSIDE)),
               str(HERE / "soc.sv"), str(HERE / "soc.cpp"), "--Mdir", str(folder / "obj")]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder / "obj" / "Vsoc"


def build(case: Case, index: int, folder: Path) -> None:
    """image.hex of one pass of one case."""
    image, sources = folder / "kernel.elf", ("riscv_start.S", "main.c", "plain.c", "update.c")
    subprocess.run(
        ["riscv64-unknown-elf-gcc", "-O3", "-march=rv32im", "-mabi=ilp32", "-nostdlib", "-ffreestanding", "-w",
         f"-DCASE={case.initializer}", f"-DPASS={index}", "-DMARK(n)=(*(volatile unsigned *)0x200000 = (n))",
         "-T", HERE / "riscv.ld", *(HERE / name for name in sources), "-lgcc", "-o", image],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    binary = folder / "kernel.bin"
    subprocess.run(["riscv64-unknown-elf-objcopy", "-O", "binary", image, binary], check=True)
    data = binary.read_bytes()
    words = struct.iter_unpack("<I", data + bytes(-len(data) % 4))
    (folder / "image.hex").write_text("".join(f"{word:08x}\n" for (word,) in words))


def measured(simulator: Path, folder: Path) -> int:
    """Cycles between the two marks around the kernel."""
    done = subprocess.run([simulator], cwd=folder, capture_output=True, text=True, check=True, timeout=600)
    marks = dict(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("mark "))
    return int(marks["2"]) - int(marks["1"])


if __name__ == "__main__":
    main()
