"""The charts as PNG or SVG files: a headless Chrome or Chromium draws the report's page, so that they are the same."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from qtrain.errors import QtrainError
from qtrain.files import one_line_errors, write_atomic
from qtrain.report import page
from qtrain.report.runs import FinishedRun

FORMATS = ("png", "svg")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge",
            "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")  # fmt: skip
BROWSER_PATH = "BROWSER_PATH"
"""Environment variable that names a browser elsewhere, as for plotly's own export."""
TIMEOUT_S = 300
_BUDGET_MS = 60_000  # of the page's own clock, which stands still while it computes

EXPORT = """<script>
addEventListener("load", async () => {
  const found = {};
  for (const figure of document.querySelectorAll("figure.chart")) {
    for (let one = figure.closest("details"); one; one = one.parentElement.closest("details")) one.open = true;
    await show(figure);
    found[figure.dataset.chart] = [DATA[figure.dataset.chart].title, await image(figure, "FORMAT")];
  }
  document.documentElement.textContent = JSON.stringify(found);
});
</script></body>"""


def write(runs: Sequence[FinishedRun], folder: str | Path, fmt: str = "png") -> list[Path]:
    """Write every chart of the report of finished runs into `folder`; returns the files.

    Their names are the chart's place on the page and its title. Raises QtrainError without a browser.
    """
    browser, text = _browser(), page.build(runs)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "page.html"
        source.write_text(text.replace("</body>", EXPORT.replace("FORMAT", fmt)), encoding="utf-8")
        drawn = _drawn(browser, source)
    folder = Path(folder)
    with one_line_errors("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (title, address) in drawn.items():
        paths.append(folder / f"{name}-{re.sub(r'[^a-z0-9]+', '-', title.lower())}.{fmt}")
        write_atomic(paths[-1], _content(address))
    return paths


def _browser() -> str:
    for name in filter(None, (os.environ.get(BROWSER_PATH), *BROWSERS)):
        if found := shutil.which(name):
            return found
    raise QtrainError(
        "--images needs Chrome or Chromium; install one (apt install chromium), or name it in the "
        f"environment variable {BROWSER_PATH}"
    )


def _drawn(browser: str, source: Path) -> dict[str, tuple[str, str]]:
    """Title and image, as a data address, of each chart."""
    profile = source.parent / "profile"
    flags = ["--headless", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-background-networking",
             "--window-size=1200,900", f"--virtual-time-budget={_BUDGET_MS}", f"--user-data-dir={profile}",
             *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])]  # fmt: skip
    command = [browser, *flags, "--dump-dom", source.as_uri()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        text = html.unescape(done.stdout)
        return dict(json.loads(text[text.index("{") : text.rindex("}") + 1]))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise QtrainError(f"--images: {browser} could not draw the charts ({reason}); try another browser") from None


def _content(address: str) -> bytes:
    """What a data address holds: base64, or percent-encoded text."""
    header, _, data = address.partition(",")
    return base64.b64decode(data) if header.endswith("base64") else urllib.parse.unquote_to_bytes(data)
