"""A comparison's rows as CSV and Parquet: one line a setting and device."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.files import one_line_errors, plain, write_atomic
from qtrain.report.comparison import Row


def flat(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows without nesting: options as columns of their own, lists joined by blanks."""
    found = []
    for row in rows:
        data = plain(row.to_json())
        options = {key: value if _scalar(value) else str(value) for key, value in data.pop("values").items()}
        own = {key: " ".join(map(str, item)) if isinstance(item, list) else item for key, item in data.items()}
        found.append({"setting": own.pop("setting")} | options | own)
    return found


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def write_csv(rows: Sequence[Row], path: str | Path) -> None:
    """Write the rows as CSV with a header."""
    records = flat(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_atomic(Path(path), text.getvalue().encode())


def write_parquet(rows: Sequence[Row], path: str | Path) -> None:
    """Write the rows as Parquet. Raises QtrainError without pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise QtrainError("--parquet needs pyarrow; install it with: pip install 'qtrain[parquet]'") from None
    with one_line_errors("write", Path(path)):
        parquet.write_table(pyarrow.Table.from_pylist(flat(rows)), path)
