"""A user's own model: package.module:factory, and every way it can fail."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qtrain import models
from qtrain.errors import QtrainError

SOURCE = """
import torch
from torch import nn

def good():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 5))
    net.input_shape, net.n_classes = (3, 8, 8), 5
    return net

def bare():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))

def mirror():
    net = nn.Flatten()
    net.task, net.input_shape = "reconstruct", (1, 2, 3)
    return net

single = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))
def same():
    return single

def raising():
    raise ValueError("first line\\nsecond line")

def number():
    return 3

def odd_task():
    net = bare()
    net.task = "guess"
    return net

value = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with mynets/net.py, forgotten again afterwards."""
    package = tmp_path / "mynets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(SOURCE)
    (package / "broken.py").write_text("1 / 0")
    (package / "needy.py").write_text("import no_such_library")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    for name in [name for name in sys.modules if name.split(".")[0] == "mynets"]:
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "mynets"]:
        del sys.modules[name]


@pytest.mark.usefixtures("folder")
def test_attributes_give_shape_and_classes() -> None:
    info = models.info("mynets.net:good")
    assert (info.input_shape, info.n_classes, info.task) == ((3, 8, 8), 5, "classify")
    assert models.build("mynets.net:good")(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    assert models.info(models.default_filter("mynets.net:good")).n_classes == 2


@pytest.mark.usefixtures("folder")
def test_weights_follow_the_seed_and_the_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (models.build("mynets.net:good", seed=seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("folder")
def test_arguments_give_what_attributes_do_not() -> None:
    assert models.info("mynets.net:bare", (3, 5, 6), 4).input_shape == (3, 5, 6)
    assert models.info("mynets.net:mirror").task == "reconstruct"


@pytest.mark.usefixtures("folder")
def test_a_module_handed_out_twice_is_in_training_mode() -> None:
    assert all(module.training for module in models.build("mynets.net:same", (1, 2, 2), 2).modules())


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.net:good", "no module named 'nowhere'"),
        ("mynets.nowhere:good", r"no module named 'mynets\.nowhere'"),
        ("mynets.needy:good", "importing mynets.needy failed, ModuleNotFoundError: No module named 'no_such"),
        ("mynets.broken:good", "importing mynets.broken failed, ZeroDivisionError"),
        ("mynets.net:god", "has no function 'god'"),
        ("mynets.net:value", "has no function 'value'"),
        ("mynets.net:raising", "the factory failed, ValueError: first line; mend it"),
        ("mynets.net:number", "must return a torch nn.Module, not int"),
        ("mynets.net:odd_task", "task 'guess'"),
        ("mynets.net:bare", "give --input-shape"),
        ("../mynets/net.py:good", "not of the form package.module:factory"),
        (":good", "not of the form"),
        ("mynets.net:", "not of the form"),
    ],
)
def test_failures_are_one_line(name: str, message: str) -> None:
    with pytest.raises(QtrainError, match=message) as caught:
        models.build(name)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "shape", "n_classes", "message"),
    [
        ("mynets.net:bare", (3, 5, 6), None, "give --classes"),
        ("mynets.net:bare", (3, 5, 6), 7, r"to \(1, 4\), not to \(1, 7\)"),
        ("mynets.net:good", (3, 9, 9), None, "cannot take input 3x9x9, RuntimeError"),
        ("mynets.net:bare", (3, 0, 6), 4, "give --input-shape"),
    ],
)
def test_a_wrong_shape_is_found_at_once(name: str, shape: tuple, n_classes: int | None, message: str) -> None:
    with pytest.raises(QtrainError, match=message):
        models.info(name, shape, n_classes)


def test_the_current_folder_is_found_from_an_installed_command(folder: Path) -> None:
    """An installed script has its own folder, not the current one, at the front of sys.path."""
    code = "import sys; sys.path = [p for p in sys.path if p]; from qtrain import models; "
    code += "print(models.info('mynets.net:good').n_classes)"
    root = str(Path(models.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "5\n"
