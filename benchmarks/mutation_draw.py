"""Which mutants there are, and which of them a seed draws; see mutation.py."""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

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


class _Plain(ast.NodeTransformer):
    """Drops what no behaviour hangs on: annotations, `if TYPE_CHECKING`, a dataclass' `frozen` and `slots`."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for call in node.decorator_list:
            if isinstance(call, ast.Call):
                call.keywords = [word for word in call.keywords if word.arg not in ("frozen", "slots")]
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        checking = any(isinstance(part, ast.Name) and part.id == "TYPE_CHECKING" for part in ast.walk(node.test))
        return ast.Pass() if checking else self.generic_visit(node)

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
    """The file's text with the mutant in it; None where nothing changes in what it does."""
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
        if len(drawn) == n_mutants:
            break
        mutant = generator.choice(options)
        text = mutated(file, mutant)
        if text is not None:
            name = f"{file.relative_to(clone)}:{mutant['line']}:{mutant['operator']}:{mutant['occurrence']}"
            drawn.append({"id": name.replace("core/", ""), "room": room, "text": text, "file": file})
    return drawn
