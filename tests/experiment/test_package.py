"""`import qtrain` is free of charge and knows its public names."""

import subprocess
import sys

import pytest

import qtrain


def test_importing_qtrain_imports_nothing_of_it():
    code = "import sys, qtrain; print([m for m in sys.modules if m.startswith(('qtrain.', 'hwmodel', 'numpy'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_public_name_is_there_and_others_are_not():
    assert set(qtrain.__all__) == {*qtrain._HOME, "__version__"}
    for name in qtrain.__all__:
        assert name in dir(qtrain)
        getattr(qtrain, name)
    assert qtrain.Experiment().seed == 0
    assert qtrain.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'Experimnt'"):
        qtrain.Experimnt  # noqa: B018
