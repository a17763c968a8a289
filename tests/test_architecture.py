"""The rooms depend on each other one way, and what needs no torch loads none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# room -> rooms it may import; `errors`, `files`, `discovery` and `globs` are shared tools below all of them
BELOW = {"errors", "files", "discovery", "globs"}
ARROWS = {
    "formats": set(),
    "engine": {"formats"},
    "pruners": {"formats", "layers"},  # layers only to name the types of what they are handed
    "layers": {"formats", "pruners", "engine"},
    "models": {"layers"},
    "data": set(),
    "filters": {"formats", "layers"},
    "recipes": {"formats", "layers", "data", "experiment", "models"},
    "experiment": {"recipes", "formats"},
    "store": {"experiment"},
    "summary": set(),
    "console": set(),
    "arguments": {"experiment"},
    "training": {"experiment", "recipes", "filters", "pruners", "models", "data", "layers", "formats", "store",
                 "summary", "engine"},
    "simulate": {"experiment", "store", "training"},
    "estimate": {"models"},
    "sweep": {"experiment", "store", "simulate", "summary"},
    "report": {"experiment", "store", "summary", "console", "simulate"},
    "compare": {"experiment", "sweep", "report"},
    "search": {"experiment", "store", "sweep", "report", "estimate", "console"},
    "reference": set(),
    "verification": {"reference", "layers", "formats", "models", "data", "training", "experiment"},
    "export": {"experiment", "store", "layers", "models", "formats", "training", "data"},
}  # fmt: skip
TORCH_FREE = (
    "experiment", "store", "summary", "console", "simulate", "estimate", "data", "sweep", "compare", "report", "search",
)  # fmt: skip


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "qtrain").parts[0].removesuffix(".py")


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Full names of the modules a file imports; without `lazy` only those it imports when it is loaded."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else (n for n in tree.body if not isinstance(n, ast.If))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = [p for p in sorted((ROOT / "qtrain").rglob("*.py")) if p.name != "__init__.py" or p.parent.name != "qtrain"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    room = room_of(path)
    if room in BELOW:
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("qtrain.") and name.count(".") >= 1}
    rooms = {name for name in used if name in ARROWS or name in BELOW}
    assert rooms - BELOW - {room} <= ARROWS[room]


@pytest.mark.parametrize("path", sorted((ROOT / "hwmodel").rglob("*.py")), ids=lambda p: p.name)
def test_hwmodel_stands_alone(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & {"torch", "qtrain", "brevitas", "rich", "click"}
    at_load = {name.split(".")[0] for name in imports(path, lazy=False)}
    assert at_load <= set(sys.stdlib_module_names) | {"hwmodel"}


@pytest.mark.parametrize("room", TORCH_FREE)
def test_torch_free_rooms_load_no_torch(room: str) -> None:
    loaded = run(f"import sys, qtrain.{room}; print('torch' in sys.modules, 'brevitas' in sys.modules)")
    assert loaded.split() == ["False", "False"]


COMMANDS = {
    "help": ["--help"],
    "simulate help": ["simulate", "--help"],
    "devices": ["devices"],
    "device": ["devices", "stm32l4r5"],
    "estimate": ["estimate", "--model", "resnet8", "--json"],
    "estimate filtered": ["estimate", "--model", "resnet8", "--batch-size", "8", "--filter-rate", "0.5"],
    "validate": ["devices", "validate"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())
def test_commands_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['qtrain', *%r]\n"
        "import cli\n"
        "try: cli.main(standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "print('\\nLOADED', 'torch' in sys.modules, 'brevitas' in sys.modules)"
    )
    assert run(code % (arguments,)).splitlines()[-1] == "LOADED False False"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installed_script_runs_from_an_empty_folder(tmp_path: Path) -> None:
    """Everything passes inside the repository even where packaging forgets cli.py: run the script elsewhere."""
    script = Path(sys.executable).with_name("qtrain")
    if not script.exists():
        pytest.skip("qtrain is not installed in this environment")
    done = subprocess.run(
        [script, "estimate", "--model", "lenet5", "--json"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"energy_j"' in done.stdout
