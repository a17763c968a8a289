"""The data folder vanishes, the disk fills, the weights explode in the middle of a run: one line, and it goes on."""

import errno
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.simulate import resume_run, simulate_experiment
from qtrain.store import Run
from qtrain.training import loop

STEPS, EVERY = 8, 3


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """160 and 20 random images of 28 x 28 in MNIST's files."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for part, n in (("train", 160), ("t10k", 20)):
        images, labels = rng.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images.astype(np.uint8)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    return folder


def experiment(data: Path, out: Path) -> Experiment:
    return Experiment().with_options({
        "model": "slimmer-lenet", "n_classes": 10, "input_shape": (1, 28, 28), "data.name": "mnist",
        "data.dir": str(data), "train.steps": STEPS, "train.batch_size": 16, "run.checkpoint_every": EVERY,
        "run.engine": "torch", "filter.kind": "none", "run.out": str(out),
    })  # fmt: skip


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: Exception) -> None:
    """The step fails with `error` until monkeypatch is undone."""
    real = loop.train_step

    def failing(job, batch, rate):
        if batch.step == step:
            raise error
        return real(job, batch, rate)

    monkeypatch.setattr(loop, "train_step", failing)


def test_a_vanished_data_folder_is_named_and_its_return_ends_the_run(data, tmp_path, monkeypatch):
    simulate_experiment(experiment(data, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 5, QtrainError("power cut"))
        with pytest.raises(QtrainError, match="power cut"):
            simulate_experiment(experiment(data, tmp_path / "part"))
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(QtrainError) as told:
        resume_run(str(tmp_path / "part"))
    assert str(data) in str(told.value)
    assert "\n" not in str(told.value)
    found = Run.open(tmp_path / "part").load_checkpoint()
    assert found is not None
    assert found[0] == EVERY  # of 3 and 6, step 5 never came to 6
    (tmp_path / "elsewhere").rename(data)
    assert resume_run(str(tmp_path / "part"))["resumed_from_step"] == EVERY
    whole, part = (tmp_path / name / "weights.safetensors" for name in ("whole", "part"))
    assert whole.read_bytes() == part.read_bytes()


def test_a_disk_that_fills_in_the_middle_costs_the_steps_since_the_checkpoint(data, tmp_path, monkeypatch):
    """From the sixteenth write on every one fails; a run that finds room again ends with the same bits."""
    simulate_experiment(experiment(data, tmp_path / "whole"))
    real, writes = os.write, iter(range(10**6))

    def full(descriptor, content):
        if next(writes) >= 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(QtrainError, match=r"cannot write .*: No space left on device") as told:
            simulate_experiment(experiment(data, tmp_path / "part"))
    assert "\n" not in str(told.value)
    assert next(writes) > 15
    assert resume_run(str(tmp_path / "part"))["resumed_from_step"] in (EVERY, 2 * EVERY)
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes()


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(data, tmp_path, monkeypatch):
    """The weights before it are kept; float32 has no saturation to hold an infinite image back."""
    real = loop._Loop._batch

    def endless(run, step):
        batch = real(run, step)
        batch.images.mul_(math.inf if step == 5 else 1.0)
        return batch

    monkeypatch.setattr(loop._Loop, "_batch", endless)
    float32 = experiment(data, tmp_path / "run").with_options({"numbers.bits": 32})
    with pytest.raises(QtrainError, match=r"step 5: .*not finite.*--lr") as told:
        simulate_experiment(float32)
    assert "\n" not in str(told.value)
    found = Run.open(tmp_path / "run").load_checkpoint()
    assert found is not None
    assert found[0] == EVERY
