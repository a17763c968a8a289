"""Do the tests notice a change of the code? Random mutants of formats, filters, pruners and pricing, a seed given.

    pip install cosmic-ray && python benchmarks/mutation.py [--seed 0] [--rooms formats,pricing] [--only ID,...]
    python benchmarks/mutation.py --table RESULTS.jsonl

Cosmic Ray says what can be mutated and how (operators, comparisons, numbers, constants, conditions, loops, decorators).
A room's places are drawn evenly, without repetition, and at each place one of its mutants: otherwise a plus, which
Cosmic Ray replaces in eleven ways, would outweigh a comparison. What changes annotations alone is no mutant. Each is
written into a clone of HEAD and put before the tests of its room alone, until the first fails. PyTorch and pytest are
loaded once and forked, which makes a mutant cost a second instead of five. A mutant that takes ten times the processor
time of the whole room is killed too (it loops). One JSON object a mutant, appended: a second run goes on from there.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PRICING = (
    "accelerator arithmetic bill cluster containers cores cost dataflow elementwise energy ethos kernels lifetimes mcu "
    "memory memory_cure ne16 nests occupation operating_point operations passes pricing roofline row_stationary "
    "schedule storage trace training_passes vector_unit work"
)
ROOMS = {
    "formats": (80, "qtrain/formats/*.py", "tests/formats"),
    "filters": (70, "qtrain/filters/*.py", "tests/filters"),
    "pruners": (60, "qtrain/pruners/*.py", "tests/pruners"),
    "pricing": (120, " ".join(f"hwmodel/{name}.py" for name in PRICING.split()), "tests/hwmodel"),
}
"""room -> (mutants drawn, modules, tests)"""
MEMORY_BYTES = 12 << 30
TIMES_THE_ROOM = 10


class _Plain(ast.NodeTransformer):
    """Drops annotations: what the interpreter never looks at."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def plain(source: str) -> str:
    return ast.dump(_Plain().visit(ast.parse(source)))


def mutants(path: Path) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """place (line, column) -> its mutants, each a record with the operator and which of its occurrences it is."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast_from_path(path)))
    found = defaultdict(list)
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if kind.arguments():
            continue  # replaces a variable that has to be named
        places = [place for node in nodes for place in kind().mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            found[start].append({"operator": name, "occurrence": occurrence, "line": start[0]})
    return found


def mutated(path: Path, mutant: dict[str, Any]) -> str | None:
    """The file's text with the mutant in it; None where only an annotation or nothing changes."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = path.read_text()
    text = mutate_code(source, get_operator(mutant["operator"])(), mutant["occurrence"])
    try:
        return None if text is None or plain(text) == plain(source) else text
    except SyntaxError:
        return None


def draw(room: str, seed: int, clone: Path) -> list[dict[str, Any]]:
    """The room's mutants for `seed`."""
    n_mutants, modules, _ = ROOMS[room]
    files = sorted(file for pattern in modules.split() for file in clone.glob(pattern))
    places = [(file, options) for file in files for _, options in sorted(mutants(file).items())]
    generator = random.Random(f"{seed}/{room}")
    generator.shuffle(places)
    drawn: list[dict[str, Any]] = []
    for file, options in places:
        mutant = generator.choice(options)
        text = mutated(file, mutant)
        if text is not None and len(drawn) < n_mutants:
            name = f"{file.relative_to(clone)}:{mutant['line']}:{mutant['operator']}:{mutant['occurrence']}"
            drawn.append({"id": name.replace("core/", ""), "room": room, "text": text, "file": file})
    return drawn


def run_tests(clone: Path, tests: str, cpu_s: float) -> tuple[str, str, float]:
    """("survived" or how it was killed, the test that did it, seconds of processor time) in a fork."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            _be_pytest(clone, tests, output.fileno(), int(cpu_s) + 1)
        _, status, used = os.wait4(child, 0)
        output.seek(0)
        failed = [line.split()[1] for line in output.read().splitlines() if line.startswith(("FAILED ", "ERROR "))]
    outcome = "killed" if os.WIFEXITED(status) else f"killed by signal {os.WTERMSIG(status)}"
    if status == 0:
        outcome = "survived"
    return outcome, failed[0] if failed else "", used.ru_utime + used.ru_stime


def _be_pytest(clone: Path, tests: str, output: int, cpu_s: int) -> None:
    """Never returns."""
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(clone)
    sys.path[:0] = [str(clone)]
    os.environ["PYTHONPATH"] = str(clone)
    sys.dont_write_bytecode = True  # two mutants of one second would share their bytecode
    code = 1
    try:
        code = pytest.main([tests, "-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist"])
    finally:
        sys.stdout.flush()
        os._exit(int(code))


def load_libraries() -> None:
    """Everything the tests import and no mutant touches; property tests repeat their examples and shrink none."""
    os.environ["CI"] = "1"
    import brevitas.nn
    import ml_dtypes
    import pytest
    import scipy.stats
    from hypothesis import Phase, settings

    settings.register_profile("mutation", phases=(Phase.explicit, Phase.generate), database=None, deadline=None)
    settings.load_profile("mutation")
    assert brevitas and ml_dtypes and pytest and scipy


def attack(rooms: list[str], seed: int, only: set[str], results: Path) -> None:
    """Try the mutants that `results` does not hold yet."""
    done = {json.loads(line)["id"] for line in results.read_text().splitlines()} if results.exists() else set()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=clone, text=True).strip()
        load_libraries()
        for room in rooms:
            drawn = [m for m in draw(room, seed, clone) if m["id"] not in done and (not only or m["id"] in only)]
            tests = ROOMS[room][2]
            outcome, test, room_s = run_tests(clone, tests, 3600) if drawn else ("survived", "", 0.0)
            if outcome != "survived":
                raise SystemExit(f"{test} fails without a mutant")
            for mutant in drawn:
                file, original = mutant["file"], mutant["file"].read_text()
                before, after = original.splitlines(), mutant["text"].splitlines()
                change = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=False) if a != b][:1]
                file.write_text(mutant["text"])
                try:
                    outcome, test, cpu_s = run_tests(clone, tests, TIMES_THE_ROOM * room_s)
                finally:
                    file.write_text(original)
                record = {"id": mutant["id"], "room": room, "commit": commit, "outcome": outcome, "test": test,
                          "cpu_s": round(cpu_s, 2), "change": change}  # fmt: skip
                with results.open("a") as out:
                    out.write(json.dumps(record) + "\n")


def table(results: Path) -> str:
    """Rows of a Markdown table: room, mutants, killed, share; then the survivors."""
    records = {(record := json.loads(line))["id"]: record for line in results.read_text().splitlines()}
    lines = ["| room | mutants | killed | share |", "|---|---:|---:|---:|"]
    for room in [*ROOMS, "all"]:
        own = [r for r in records.values() if room in (r["room"], "all")]
        killed = sum(r["outcome"] != "survived" for r in own)
        lines.append(f"| {room} | {len(own)} | {killed} | {100 * killed / max(len(own), 1):.1f} % |")
    survivors = sorted((r["id"], r["change"]) for r in records.values() if r["outcome"] == "survived")
    return "\n".join([*lines, "", *(f"- `{name}`: {change}" for name, change in survivors)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", default=",".join(ROOMS))
    parser.add_argument("--only", default="", help="ids of the mutants to try, by commas")
    parser.add_argument("--results", type=Path, default=Path("mutation.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what the results say, and try nothing")
    given = parser.parse_args()
    if not given.table:
        attack(given.rooms.split(","), given.seed, set(filter(None, given.only.split(","))), given.results)
    print(table(given.results))


if __name__ == "__main__":
    main()
