"""Finished run folders made without training: the estimator's trace of a stream, a made-up accuracy."""

from pathlib import Path

from hwmodel import network
from hwmodel.operations import Widths
from hwmodel.schedule import Schedule
from hwmodel.trace import Trace
from qtrain.experiment import Experiment
from qtrain.store import Run
from qtrain.summary import RunRecord

BATCH, N_STEPS = 8, 10


def finished_run(
    folder: Path, accuracy: float | None = 0.5, devices: tuple[str, ...] = ("stm32l4r5",), n_rows: int = 3, **options
) -> Path:
    """A run of N_STEPS unfiltered steps of BATCH instances of digits-cnn; `options` by key, dots as two underscores."""
    keys = {key.replace("__", "."): value for key, value in options.items()}
    experiment = Experiment().with_options({"filter.kind": "none", "run.devices": devices, **keys})
    bits = 32 if experiment.numbers.plan == "float32" else experiment.numbers.weight_bits
    schedule = Schedule(
        network.load("digits-cnn"), Widths.uniform(bits), momentum=True, prune_keep=experiment.prune.keep
    )
    trace: Trace = schedule.step(BATCH).repeated(N_STEPS)
    record = RunRecord(trace, schedule, None, {BATCH: N_STEPS})
    seen = BATCH * N_STEPS
    with Run.create(folder, experiment) as run:
        for row in range(1, n_rows + 1):
            run.append_metrics({"step": row, "loss": 1 / row, "accuracy": None if row == 1 else accuracy,
                                "kept_share": 1.0, "uncertain_share": 0.0, "energy_j": 0.25 * row})  # fmt: skip
        run.save_trace(record.to_json())
        run.save_weights({})
        run.finish({
            "accuracy": accuracy, "loss": 1.5, "accuracy_before": None, "seed": experiment.seed,
            "recipe": "supervised", "model": experiment.model, "data": experiment.data.name, "run": str(folder),
            "resumed_from_step": None, "n_steps": N_STEPS, "n_updates": N_STEPS, "wall_time_s": 1.0,
            "instances": {"seen": seen, "kept": seen, "uncertain": 0}, "warnings": [],
            **record.summary(), "bills": record.bills(devices),
        })  # fmt: skip
    return folder
