"""Many runs: a grid of experiments, and the engines that carry them out in parallel."""

from qtrain.sweep.engine import Interrupted
from qtrain.sweep.grid import Grid, read_grid
from qtrain.sweep.sweep import ENGINES, Sweep, engines_apart, run_trials

__all__ = ["ENGINES", "Grid", "Interrupted", "Sweep", "engines_apart", "read_grid", "run_trials"]
