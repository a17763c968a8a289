"""One frozen description of a run: the same in Python, in TOML and on the command line."""

from qtrain.experiment.catalogue import Option, options
from qtrain.experiment.description import Experiment, load
from qtrain.experiment.identity import code_version
from qtrain.experiment.layers import LayerRule
from qtrain.experiment.learning import Adversarial, Contrast, SelfAdaptive, Sinkhorn, Stream
from qtrain.experiment.methods import Filter, Prune
from qtrain.experiment.options import whole_or_text
from qtrain.experiment.sections import Data, Execution, Numbers, Optimizer, Train

__all__ = [
    "Adversarial",
    "Contrast",
    "Data",
    "Execution",
    "Experiment",
    "Filter",
    "LayerRule",
    "Numbers",
    "Optimizer",
    "Option",
    "Prune",
    "SelfAdaptive",
    "Sinkhorn",
    "Stream",
    "Train",
    "code_version",
    "load",
    "options",
    "whole_or_text",
]
