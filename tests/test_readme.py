"""What the README shows works: its Python runs, its commands and options exist."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["bill"].energy_j > 0
    assert names["bill"].memory.peak_ram_bytes > 0


COMMANDS = sorted({line.split("#")[0].strip() for line in README.splitlines() if line.startswith("qtrain ")})


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_options_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    shown = CliRunner().invoke(main, [words[0], "--help"])
    assert shown.exit_code == 0, line
    for option in (w for w in words if w.startswith("--")):
        assert option in shown.output, f"{line}: {option}"
