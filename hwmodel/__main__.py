"""`python -m hwmodel validate`: the model against its calibration measurements, without torch or qtrain."""

from __future__ import annotations

import argparse
import json
import sys

from hwmodel.errors import HwmodelError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(prog="python -m hwmodel", description="Validate the hardware model.")
    commands = parser.add_subparsers(dest="command", required=True)
    validate = commands.add_parser("validate", help="errors on every calibration measurement")
    validate.add_argument("--json", action="store_true", help="print one JSON object")
    validate.add_argument("--refit", action="store_true", help="rewrite calibration/fitted.toml from the table")
    options = parser.parse_args(arguments)
    from hwmodel.validate import render, report, write_fit

    try:
        if options.refit:
            print(write_fit())
            return 0
        data = report()
    except HwmodelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(data) if options.json else render(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
