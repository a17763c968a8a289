"""Choosing an engine: when kernels are built, where they are kept, and what happens where they can't be."""

import os
import subprocess
import sys

import pytest

from qtrain import engine
from qtrain.errors import QtrainError

needs_compiler = pytest.mark.skipif(engine.compiler() is None, reason="no C++ compiler")


def run(code, tmp_path, **environment):
    """stdout lines and stderr of a fresh Python with an empty cache."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd(),
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    return result.stdout.split(), result.stderr


def test_unknown_engines_are_refused():
    with pytest.raises(QtrainError, match="valid: auto, torch, compiled, brevitas"):
        engine.use("cuda")


def test_using_restores_the_engine():
    before = engine.active()
    with engine.using("brevitas"):
        assert engine.active() == "brevitas"
    assert engine.active() == before


@needs_compiler
def test_auto_builds_for_long_runs_alone_and_nothing_at_import(tmp_path):
    code = """
import os
from qtrain import engine
from qtrain.layers import quantize
print(engine.active())
engine.prepare(1.0)
print(engine.active(), os.path.exists(os.environ["XDG_CACHE_HOME"] + "/qtrain"))
engine.prepare(3600.0)
print(engine.active(), len(os.listdir(os.environ["XDG_CACHE_HOME"] + "/qtrain")))
maps = open("/proc/self/maps").read().split() if os.path.exists("/proc/self/maps") else []
print(len({path for path in maps if "libgomp" in path and "scikit" not in path}))
"""
    out, _ = run(code, tmp_path)
    assert out[:5] == ["torch", "torch", "False", "compiled", "1"]
    if sys.platform == "linux":
        assert out[5] == "1"  # PyTorch's own OpenMP runtime and no other
    again, _ = run("from qtrain import engine; print(engine.active())", tmp_path)
    assert again == ["compiled"]  # found in the cache


@pytest.mark.parametrize("command", ["no-such-compiler", "false"])
def test_without_a_working_compiler_one_warning_and_the_same_bits(command, tmp_path):
    code = """
import torch
from qtrain import engine
from qtrain.formats.fixed import FixedPoint
from qtrain.layers.quantizer import Clock, Quantizer
engine.use("compiled")
engine.use("compiled")
engine.prepare(3600.0)
point = Quantizer(FixedPoint(4), "nearest-even", "dynamic", 1, "p")
print(engine.active(), point(torch.tensor([1.0, -7.0]), Clock(0, 0)).values.tolist())
"""
    out, err = run(code, tmp_path, CXX=command)
    assert out == ["torch", "[1.0,", "-7.0]"]  # 4 bits hold -7..7 with step 1
    assert err.count("same bits, slower") == 1
