"""The command line: what it prints, the JSON others rely on, and one-line errors."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from cli import main
from hwmodel import devices
from qtrain.console import show_devices

QUICK = ["--steps", "12", "--batch-size", "16"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    result = call("simulate", *QUICK, "--out", folder, "--device", "stm32l4r5", "--device", "eyeriss")
    assert result.exit_code == 0, result.output
    return folder


def test_simulate_json_form(run_folder: Path) -> None:
    done = call("simulate", "--resume", run_folder, "--json")
    result = json.loads(done.stdout)
    assert {
        "accuracy",
        "loss",
        "seed",
        "recipe",
        "run",
        "resumed_from_step",
        "instances",
        "macs",
        "saved",
        "bills",
    } <= (result.keys())
    assert set(result["instances"]) == {"seen", "kept", "uncertain", "backward"}
    assert result["instances"]["seen"] == 12 * 16
    assert result["macs"]["total"] == sum(result["macs"]["by_phase"].values())
    assert [bill["device"] for bill in result["bills"]] == ["stm32l4r5", "eyeriss"]
    for bill in result["bills"]:
        assert bill["scope"] == "run"
        assert bill["n_instances"] == 12 * 16
        for quantity in ("energy_j", "cycles"):
            assert sum(row[quantity] for row in bill["by_phase"].values()) == pytest.approx(bill[quantity])
            assert sum(row[quantity] for row in bill["by_layer"]) == pytest.approx(bill[quantity])
        macs = sum(row["macs"] for row in bill["by_phase"].values())
        assert macs == result["macs"]["total"] == sum(row["macs"] for row in bill["by_layer"])


def test_price_equals_the_runs_bill(run_folder: Path) -> None:
    stored = json.loads((run_folder / "result.json").read_text())["bills"][0]
    again = json.loads(call("price", run_folder, "--device", "stm32l4r5", "--json").stdout)["bills"][0]
    assert again == stored


def test_tables_name_what_matters(run_folder: Path) -> None:
    shown = call("simulate", "--resume", run_folder).output
    for words in ("test accuracy", "kept", "uncertain", "MACs saved", "per instance", "peak RAM", "basis"):
        assert words in shown


def test_a_device_is_a_line_at_any_width() -> None:
    for width, terminal in ((80, True), (40, False)):
        console = Console(width=width, force_terminal=terminal, record=True, file=io.StringIO())
        show_devices(console, [devices.load(name) for name in devices.names()])
        lines = console.export_text().splitlines()
        for name in devices.names():
            device = devices.load(name)
            (line,) = (line for line in lines if line.split()[:1] == [name])
            assert f"{device.get('sram_bytes', 0) / 1024:,.1f} KiB" in line
            assert len(line) <= width or not terminal
            assert terminal or device.basis in line  # what goes to a file is whole


@pytest.mark.parametrize("command", ["simulate", "estimate", "price", "devices"])
def test_help(command: str) -> None:
    assert call(command, "-h").exit_code == 0


def test_estimate_scales_with_the_batch() -> None:
    bills = [
        json.loads(call("estimate", "--model", "lenet5", "--batch-size", n, "--json").stdout)["bills"][0]
        for n in (1, 4)
    ]
    forward = [bill["by_phase"]["forward"]["macs"] for bill in bills]
    assert forward == [416_520, 4 * 416_520]  # one instance's MACs: see tests/models
    assert bills[0]["by_phase"]["update"] == bills[1]["by_phase"]["update"]


def test_inference_is_one_forward() -> None:
    bill = json.loads(call("estimate", "--model", "resnet8", "--inference", "--json").stdout)["bills"][0]
    assert bill["scope"] == "inference"
    assert bill["by_phase"]["forward"]["macs"] == 12_501_632
    assert not any(bill["by_phase"][phase]["macs"] for phase in ("error", "gradient", "update"))


@pytest.mark.parametrize("flag", ["--filter-rate", "--uncertain-rate", "--prune-keep"])
@pytest.mark.parametrize("share", ["nan", "1.5", "-inf"])
def test_a_share_is_a_number_from_0_to_1(flag: str, share: str) -> None:
    done = CliRunner().invoke(main, ["estimate", "--model", "digits-cnn", flag, share])
    assert done.exit_code == 2
    assert flag in done.stderr
    assert "is not in the range" in done.stderr


def test_a_line_break_in_what_was_typed_breaks_no_line_of_the_error() -> None:
    done = CliRunner().invoke(main, ["recipes", "two\nlines"])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].endswith("two lines)")


BAD = {
    "model": (["--model", "resnet21"], "did you mean 'resnet"),
    "device": (["--device", "stm32l4r"], "did you mean 'stm32l4r5'"),
    "bits 0": (["--bits", "0"], "2 to 16, or 32"),
    "bits 17": (["--bits", "17"], "2 to 16, or 32"),
    "bits 33": (["--bits", "33"], "2 to 16, or 32"),
    "data folder": (["--data", "mnist", "--data-dir", "nowhere"], "expected train-images-idx3-ubyte"),
    "loss": (["--numbers", "float32", "--lr", "1e30", "--filter", "none", *QUICK], "step 1"),
    "loss in fixed point": (["--lr", "1e300", "--filter", "none", *QUICK], "--lr"),
    "out": (["--out", "/proc/nowhere"], "/proc/nowhere"),
    "factory": (["--model", "no_such_module:make"], "no_such_module"),
    "train": (["--train", "nothing*"], "no trainable layer matches"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD.keys())
def test_one_line_errors(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("simulate", *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]


def test_unknown_toml_key(tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text("[numbers]\nwieght_bits = 4\n")
    done = call("simulate", file)
    assert done.exit_code == 2
    assert "e.toml" in done.stderr
    assert "did you mean 'numbers.weight_bits'" in done.stderr


def test_options_beat_the_file(tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text("seed = 3\n[train]\nsteps = 2\nbatch_size = 8\n")
    done = call("simulate", file, "--seed", "5", "--out", tmp_path / "run", "--json")
    result = json.loads(done.stdout)
    assert (result["seed"], result["n_steps"]) == (5, 2)


OWN = """
import torch
from torch import nn
import torch.nn.functional as F

class Net(nn.Module):
    input_shape = (1, 8, 8)
    n_classes = 10

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.depthwise(x))
        x = F.relu(self.grouped(x) + self.shortcut(x))
        return self.head(x.mean((2, 3)))

def make():
    return Net()

def unsupported():
    net = Net()
    net.head = nn.Sequential(nn.Linear(16, 10), nn.PReLU())
    return net
"""


def test_users_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    done = call("simulate", "--model", "own_net:make", *QUICK, "--prune-keep", "0.5", "--json")
    assert done.exit_code == 0, done.stderr
    layers = {row["layer"] for row in json.loads(done.stdout)["bills"][0]["by_layer"]}
    assert {"stem", "depthwise", "grouped", "shortcut", "head"} <= layers
    bad = call("simulate", "--model", "own_net:unsupported", *QUICK)
    assert bad.exit_code == 2
    assert "head.1 (PReLU)" in bad.stderr
    assert len(bad.stderr.strip().splitlines()) == 1
