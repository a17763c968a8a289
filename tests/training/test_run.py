"""Whole small runs: savings recomputed by hand, resumed runs, and filters and pruners that really shrink the work."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from hwmodel.schedule import Schedule
from qtrain.experiment import Experiment
from qtrain.simulate import resume_run, simulate_experiment
from qtrain.store import Run
from qtrain.summary import RunRecord
from qtrain.training import loop

SMALL = {"train.steps": 14, "train.batch_size": 16, "run.engine": "torch"}


def experiment(folder: Path, **options: object) -> Experiment:
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return Experiment().with_options(SMALL | {"run.out": str(folder)} | dotted)


def test_savings_by_hand(tmp_path: Path) -> None:
    """Dense float32 training of the stream: 14 steps of 16 instances, each forward + error + gradient + update."""
    result = simulate_experiment(experiment(tmp_path / "run"))
    record = RunRecord.from_json(Run.open(tmp_path / "run").trace())
    layers = record.schedule.network.layers
    forward = sum(layer.macs for layer in layers)
    first = next(layer for layer in layers if layer.macs)  # below it no error is needed
    parameters = sum(layer.n_parameters for layer in layers)
    terms = 3  # rate, momentum, weight decay
    dense = 14 * (16 * (3 * forward - first.macs) + terms * parameters)
    assert result["macs"]["dense_fp32"] == dense
    performed = sum(result["macs"]["by_phase"].values())
    assert result["saved"]["macs"] == pytest.approx(1 - performed / dense)
    assert result["saved"]["bitops"] == pytest.approx(1 - record.trace.bit_operations() / (dense * 32 * 32))


def test_kept_instances_are_what_is_computed(tmp_path: Path) -> None:
    """Main forward MACs = kept instances x MACs of one; uncertain likewise; the filter sees everything."""
    result = simulate_experiment(experiment(tmp_path / "run", prune__kind="none"))
    record = RunRecord.from_json(Run.open(tmp_path / "run").trace())
    assert record.filter_schedule is not None
    one = record.schedule.network.macs
    macs, n = result["macs"]["by_phase"], result["instances"]
    assert macs["forward"] == n["kept"] * one
    uncertain = sum(t.count * op.macs for op, t in record.trace if op.payer == "uncertain")
    assert uncertain == n["uncertain"] * one
    filter_forward = sum(t.count * op.macs for op, t in record.trace if op.payer == "filter" and op.phase == "forward")
    assert filter_forward == n["seen"] * record.filter_schedule.network.macs


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def without_time(result: dict) -> dict:
    return {k: v for k, v in result.items() if k not in ("run", "wall_time_s", "resumed_from_step")}


def test_interrupted_and_resumed_is_the_same_run(tmp_path: Path) -> None:
    whole = simulate_experiment(experiment(tmp_path / "whole", data__augment=True))

    def interrupt(progress: loop.Progress) -> None:
        if progress.step == 9:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(loop.Interrupted, match="after step 9 of 14"):
        simulate_experiment(experiment(tmp_path / "part", data__augment=True), interrupt)
    assert not (tmp_path / "part" / "result.json").exists()
    resumed = resume_run(str(tmp_path / "part"))
    assert resumed["resumed_from_step"] == 9
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")
    assert without_time(resumed) == without_time(whole)
    assert (tmp_path / "part" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_finished_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = simulate_experiment(experiment(tmp_path / "run"))
    monkeypatch.setattr(loop, "run", None)  # would fail if called
    assert simulate_experiment(experiment(tmp_path / "run")) == json.loads(json.dumps(first))


def test_same_bits_at_any_thread_count(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            simulate_experiment(experiment(tmp_path / str(threads), run__threads=threads))
    finally:
        torch.set_num_threads(before)
    assert weights(tmp_path / "1") == weights(tmp_path / "2")


def test_fine_tuning_starts_from_given_weights(tmp_path: Path) -> None:
    simulate_experiment(experiment(tmp_path / "first"))
    file = tmp_path / "w.safetensors"
    shutil.copy(tmp_path / "first" / "weights.safetensors", file)
    trained = Run.open(tmp_path / "first").result()
    assert trained is not None
    tuned = simulate_experiment(experiment(tmp_path / "tuned", init=str(file), optimizer__lr=1e-9))
    # the same weights on fresh exponents: a test instance or two of 355 may fall on the other side
    assert tuned["accuracy_before"] == pytest.approx(trained["accuracy"], abs=0.03)


@pytest.mark.parametrize("kind", ["channel", "none"])
def test_halving_shrinks_the_backward_tensors(kind: str, tmp_path: Path) -> None:
    """Channel pruning at one half leaves, of every convolution with an even number of channels, half the products."""
    macs = {}
    for keep in (1.0, 0.5):
        result = simulate_experiment(
            experiment(tmp_path / f"{kind}{keep}", filter__kind="none", prune__kind=kind, prune__keep=keep)
        )
        macs[keep] = result["macs"]["by_phase"]
    record = RunRecord.from_json(Run.open(tmp_path / f"{kind}1.0").trace())
    convs = [layer for layer in record.schedule.network.layers if layer.kind == "conv"]
    linear = [layer for layer in record.schedule.network.layers if layer.kind == "linear"]
    seen = 14 * 16
    dense = seen * sum(layer.macs for layer in [*convs, *linear])
    halved = seen * (sum(layer.macs for layer in convs) // 2 + sum(layer.macs for layer in linear))
    assert macs[1.0]["gradient"] == dense
    assert macs[0.5]["gradient"] == (halved if kind == "channel" else dense)


def test_exported_schedule_reads_back(tmp_path: Path) -> None:
    simulate_experiment(experiment(tmp_path / "run"))
    record = RunRecord.from_json(Run.open(tmp_path / "run").trace())
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert isinstance(record.schedule, Schedule)


def test_weights_are_on_the_master_grid(tmp_path: Path) -> None:
    """16-bit masters: every saved weight is an integer of at most 15 bits times one power of two per tensor."""
    simulate_experiment(experiment(tmp_path / "run"))
    for name, values in Run.open(tmp_path / "run").weights().items():
        if "running" in name or "tracked" in name:
            continue
        scaled = values.astype(np.float64)
        exponent = next(e for e in range(10, -60, -1) if np.array_equal(scaled * 2.0**-e, np.round(scaled * 2.0**-e)))
        assert np.abs(scaled * 2.0**-exponent).max() < 2**15, name
