"""Do the tests notice a change of the code? Random mutants of formats, filters, pruners and pricing, a seed given.

    pip install cosmic-ray && python benchmarks/mutation.py [--seed 0] [--rooms formats,pricing] [--only ID,...]
    python benchmarks/mutation.py --table RESULTS.jsonl

Cosmic Ray says what can be mutated and how (operators, comparisons, numbers, constants, conditions, loops, decorators).
A room's places are drawn evenly, without repetition, and at each place one of its mutants: otherwise a plus, which
Cosmic Ray replaces in eleven ways, would outweigh a comparison. What only type checkers read is no mutant, nor are
`frozen` and `slots`. Each is put before the tests of its room alone, in a clone of HEAD, until one fails: in a fork of
one session, which costs a tenth of a start (mutation_session.py), where only functions change, else (and with --only)
freshly imported. One that takes ten times the processor time of the whole room is killed too (it loops). One JSON
object a mutant, appended: a second run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mutation_draw import ROOMS, draw
from mutation_session import Attack, changed_functions, in_fork, load_libraries

ROOT = Path(__file__).parent.parent
MEMORY_BYTES = 12 << 30
TIMES_THE_ROOM = 10
OPTIONS = (
    "-x",
    "-q",
    "--tb=no",
    "-rfE",
    "--timeout=0",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-k",
    "not takes_less_than",
)
"""No limit of wall time, and no test of it: on a shared machine that would kill by chance."""
Outcome = tuple[str, str, float]
Mutant = dict[str, Any]


def nearest_first(clone: Path, tests: str, module: str) -> list[list[str]]:
    """The room's test files in two rounds: the one that speaks of the module most often, then all others."""
    files = sorted((clone / tests).glob("test_*.py"), key=lambda file: -file.read_text().count(module))
    names = [str(file.relative_to(clone)) for file in files]
    return [names[:1], names[1:]]


def run_tests(clone: Path, rounds: list[list[str]], cpu_s: float, keep_bytecode: bool = False) -> Outcome:
    """("survived" or how it was killed, the test that did it, seconds of processor time) in a fork."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            sys.dont_write_bytecode = not keep_bytecode  # two mutants of one second would share it
            _be_pytest(clone, rounds, output.fileno(), int(cpu_s) + 1)
        _, status, used = os.wait4(child, 0)
        output.seek(0)
        failed = [line.split()[1] for line in output.read().splitlines() if line.startswith(("FAILED ", "ERROR "))]
    outcome = "killed" if os.WIFEXITED(status) else f"killed by signal {os.WTERMSIG(status)}"
    if status == 0:
        outcome = "survived"
    return outcome, failed[0] if failed else "", used.ru_utime + used.ru_stime


def enter(clone: Path) -> None:
    """Make the clone the place that everything is imported from."""
    os.chdir(clone)
    sys.path[:0] = [str(clone)]
    os.environ["PYTHONPATH"] = str(clone)


def _be_pytest(clone: Path, rounds: list[list[str]], output: int, cpu_s: int) -> None:
    """Never returns."""
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.dup2(output, 1)
    os.dup2(output, 2)
    enter(clone)
    code = 1
    try:
        for files in rounds:
            code = pytest.main([*files, *OPTIONS])
            if code:
                break
    finally:
        sys.stdout.flush()
        os._exit(int(code))


def attack(rooms: list[str], seed: int, only: set[str], results: Path) -> None:
    """Try the mutants that `results` does not hold yet; those of `only` again, each freshly imported."""
    done = {json.loads(line)["id"] for line in results.read_text().splitlines()} if results.exists() else set()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=clone, text=True).strip()
        load_libraries()
        for room in rooms:
            drawn = [m for m in draw(room, seed, clone) if (m["id"] in only if only else m["id"] not in done)]
            for mutant in drawn:
                mutant["commit"] = commit
                mutant["functions"] = None if only else changed_functions(mutant["file"], mutant["text"])
            fresh = [mutant for mutant in drawn if mutant["functions"] is None]
            in_session = [mutant for mutant in drawn if mutant["functions"]]
            attack_fresh(clone, room, fresh, results)
            if in_session:
                found, _ = in_fork(lambda r=room, m=in_session: attack_in_session(clone, r, m, results))
                if found:
                    raise SystemExit(f"{room}: {found}")


def attack_fresh(clone: Path, room: str, mutants: list[Mutant], results: Path) -> None:
    """Each mutant in a process that imports everything anew."""
    tests = ROOMS[room][2]
    whole = nearest_first(clone, tests, room)
    outcome, test, room_s = run_tests(clone, whole, 3600, True) if mutants else ("survived", "", 0.0)
    if outcome != "survived":
        raise SystemExit(f"{test} fails without a mutant")
    for mutant in mutants:
        file, original = mutant["file"], mutant["file"].read_text()
        file.write_text(mutant["text"])
        for stale in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            stale.unlink()
        try:
            rounds = nearest_first(clone, tests, file.stem)
            outcome, test, cpu_s = run_tests(clone, rounds, TIMES_THE_ROOM * room_s)
        finally:
            file.write_text(original)
        note(mutant, outcome, test, cpu_s, results)


def attack_in_session(clone: Path, room: str, mutants: list[Mutant], results: Path) -> str:
    """All mutants in forks of one session; "" or what went wrong."""
    import pytest

    def on_done(mutant: Mutant, found: str, cpu_s: float) -> None:
        ended = "survived" if found == "" else found if found.startswith("status") else "killed"
        note(mutant, ended, found, cpu_s, results)

    enter(clone)
    code = pytest.main([ROOMS[room][2], *OPTIONS], plugins=[Attack(mutants, TIMES_THE_ROOM, on_done)])
    return "" if code in (0, 5) else f"pytest's exit status {int(code)}"


def note(mutant: Mutant, outcome: str, test: str, cpu_s: float, results: Path) -> None:
    """Append what became of a mutant."""
    before, after = mutant["file"].read_text().splitlines(), mutant["text"].splitlines()
    change = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=False) if a != b][:1]
    record = {"id": mutant["id"], "room": mutant["room"], "commit": mutant["commit"], "outcome": outcome, "test": test,
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
