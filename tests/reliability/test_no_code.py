"""No code comes out of files: nothing that could run any is called, and only the user's own model is imported by name.

Read from the syntax trees of all modules, so that a new file is held to it too."""

import ast
import io
import pickle
import zipfile
from pathlib import Path

import pytest

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment
from qtrain.store import read_tensors

ROOT = Path(__file__).parent.parent.parent
FILES = [ROOT / "cli.py", *sorted(ROOT.glob("qtrain/**/*.py")), *sorted(ROOT.glob("hwmodel/**/*.py"))]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "runpy", "imp", "code"}
"""pickletools, which qtrain/data/pickles.py uses, only parses."""
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "np.load", "numpy.load", "os.system", "os.popen",
         "torch.hub.load", "torch.jit.load", "pd.read_pickle"}  # fmt: skip
IMPORTS_BY_NAME = {
    "qtrain/__init__.py": "its own public names",
    "qtrain/data/__init__.py": "the files of its folder",
    "qtrain/discovery.py": "the files of a package's folder",
    "qtrain/models/_user.py": "--model package.module:factory",
    "qtrain/models/catalog.py": "the files of its folder",
    "qtrain/recipes/__init__.py": "its own public names",
}
RUNS_PROGRAMS = {
    "qtrain/engine/build.py": "the compiler",
    "qtrain/report/images.py": "Chromium",
    "qtrain/store/environment.py": "git rev-parse",
}


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def used(path: Path) -> tuple[set[str], set[str]]:
    """(modules imported, names called; keyword shell=True counts as a call of "shell")"""
    modules, calls = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
        elif isinstance(node, ast.Call):
            calls.add(dotted(node.func))
            calls |= {str(word.arg) for word in node.keywords if word.arg in ("shell", "allow_pickle")}
    return modules, calls


def test_the_check_sees_what_it_is_for(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import yaml\nfrom pickle import load\ntorch.load(x)\neval('1')\nrun(x, shell=True)\n")
    assert used(path) == ({"yaml", "pickle"}, {"torch.load", "eval", "run", "shell"})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_runs_code_from_a_file(path):
    name = str(path.relative_to(ROOT))
    modules, calls = used(path)
    assert not {module.split(".")[0] for module in modules} & MODULES
    assert not calls & (CALLS | {"shell", "allow_pickle"})
    by_name = any(call.rpartition(".")[2] == "import_module" for call in calls)
    assert by_name == (name in IMPORTS_BY_NAME)
    assert ("subprocess" in modules) == (name in RUNS_PROGRAMS)


def test_what_a_pickle_carries_is_never_called(tmp_path):
    """A torch.save file is a zip with a pickle in it; weights are read as safetensors or not at all."""
    victim = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return open, (str(victim), "w")

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Payload()))
    for content in (archive.getvalue(), pickle.dumps(Payload())):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(content)
        with pytest.raises(QtrainError, match=r"weights\.safetensors"):
            read_tensors(path)
        assert not victim.exists()
    pickle.loads(pickle.dumps(Payload())).close()
    assert victim.exists()  # the payload works, where somebody loads it


def test_a_model_that_is_no_factory_path_imports_nothing(tmp_path, monkeypatch):
    """A path, an expression or a module alone is refused before anything is imported."""
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    for name in ("trap", "trap.py", "./trap:factory", "trap:", "trap:f()", "trap;trap:f", "__import__('trap'):f"):
        with pytest.raises(QtrainError, match="model") as told:
            simulate_experiment(Experiment(model=name).with_options({"run.out": str(tmp_path / "run")}))
        assert name in str(told.value)
