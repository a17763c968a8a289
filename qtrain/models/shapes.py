"""The shapes of models as hwmodel reads them: `python -m qtrain.models.shapes FOLDER` writes the shipped ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hwmodel.network import Network
from qtrain.errors import QtrainError


def traced(name: str, input_shape: str | None = None) -> Network:
    """The layers of the model `name` at its native input or at "C,H,W". Raises QtrainError."""
    import torch

    from qtrain.layers.graph import trace
    from qtrain.models import build, info

    shape = None
    if input_shape is not None:
        try:
            shape = tuple(int(part) for part in input_shape.split(","))
        except ValueError:
            raise QtrainError(f"--input-shape {input_shape!r}: give three whole numbers, C,H,W") from None
    found = info(name, shape)  # type: ignore[arg-type]
    model = build(name, found.input_shape, found.n_classes or None).to(torch.device("meta"))
    return trace(model, found.input_shape, name)[1]


def write_all(folder: Path) -> None:
    """Write every shipped model's shapes as FOLDER/<name>.json, one layer a line."""
    from qtrain.models import names

    for name in names():
        data = traced(name).to_json()
        rows = ",\n".join("  " + json.dumps(row) for row in data["layers"])
        text = f'{{"name": {json.dumps(name)}, "layers": [\n{rows}\n]}}\n'
        (folder / f"{name}.json").write_text(text)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
