"""The report: its numbers are those of the run folders, it is small and quick, and a browser draws all of it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

import cli
from hwmodel import devices, pricing
from hwmodel.storage import Packing, buffer_bytes
from qtrain.errors import QtrainError
from qtrain.report import page, read_runs
from qtrain.report.charts import BUFFERS, DIGITS, brief, group
from tests.report.finished import finished_run

pytest.importorskip("plotly", reason="needs the extra report")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HEALTH = [
    {"layer": "conv1", "role": "output", "bits": 8, "saturated": 0.25, "zeroed": 0.5, "sqnr_db": 30.0},
    {"layer": "conv1", "role": "error", "bits": 8, "saturated": 0.0, "zeroed": 0.125, "sqnr_db": None},
]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run with every kind of chart, and its page."""
    folder = finished_run(tmp_path_factory.mktemp("one") / "run", 0.875, devices=("stm32l4r5", "stm32f746"), n_rows=80)
    (folder / "SHA256SUMS").unlink()  # what follows is written by hand
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"kept_share": 1 / (1 + row["step"]), "precision": 0.5, "recall": 0.25, "threshold": 3 / row["step"]}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "numbers.json").write_text(json.dumps({"health": HEALTH}))
    return folder, rows, page.build(read_runs([folder])[0])


def charts_of(text: str) -> list[dict]:
    """The charts a page holds."""
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert embedded
    return list(json.loads(embedded[1]).values())


def data_of(text: str) -> dict[str, dict]:
    """The charts of a page, by title."""
    return {chart["title"]: chart for chart in charts_of(text)}


def test_the_charts_hold_the_numbers_of_the_run_folder(one):
    folder, rows, text = one
    result, charts = json.loads((folder / "result.json").read_text()), data_of(text)
    loss = charts["Loss"]["columns"]
    assert loss["loss"] == [brief(row["loss"]) for row in rows]
    assert loss["energy_j"] == [brief(row["energy_j"]) for row in rows]
    assert charts["Filter: shares"]["columns"]["kept_share"] == [brief(row["kept_share"]) for row in rows]
    assert charts["Accuracy"]["columns"]["accuracy"][-1] == result["accuracy"] == 0.875
    for bill in result["bills"]:
        energy = charts[f"Energy by layer and phase on {bill['device']}"]["columns"]["energy_j"]
        assert sum(energy) == pytest.approx(bill["energy_j"], rel=10.0 ** (1 - DIGITS))
        memory = charts[f"Memory of one training step on {bill['device']}"]
        sums = [sum(moment) for moment in zip(*(v for k, v in memory["columns"].items() if k != "pass"), strict=True)]
        assert max(sums) == sums[memory["peak_index"]] == bill["peak_ram_bytes"]
        assert memory["limit_bytes"] == bill["ram_limit_bytes"]
    assert charts["Numerics health"]["columns"]["zeroed"] == [0.5, 0.125]


def test_only_buffers_of_a_single_pass_are_drawn_as_working_buffers(one):
    record = read_runs([one[0]])[0][0].record
    buffers = {role for op, _ in record.trace for role in buffer_bytes(op, Packing(containers=True))}
    moments = pricing.memory(record.trace, devices.load("stm32l4r5"), record.schedule).timeline
    roles = {role for moment in moments for role in moment.by_role}
    assert {role for role in roles if group(role) == BUFFERS} == roles & buffers


def test_headline_settings_and_device_constants_are_on_the_page(one):
    _, _, text = one
    assert "87.5 %" in text
    assert "<code>filter.kind</code></td><td><strong>none</strong>" in text
    for name in ("stm32l4r5", "stm32f746"):
        for key, constant in devices.load(name).constants.items():
            assert f"<code>{key}</code></td><td>{constant.value:g}</td>" in text


def test_a_baseline_beside_the_run_is_shown_with_the_difference_in_points(tmp_path):
    folder = finished_run(tmp_path / "run", 0.875)
    finished_run(folder / "baseline", 0.9, numbers__plan="float32")
    text = page.build(read_runs([folder])[0])
    assert "90.0 % (-2.50 points)" in text  # 87.5 - 90
    assert data_of(text)["Accuracy"]["reference"] == {"name": "dense float32", "value": 0.9}


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.anchors, self.targets, self.addresses = set(), set(), []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given["id"]} if "id" in given else set()
        if tag == "a":
            self.targets.add(given["href"].removeprefix("#"))
        self.addresses += [given[name] for name in ("src", "href") if name in given and tag != "a"]


def test_every_setting_links_to_its_runs_and_nothing_leads_outside(tmp_path):
    for bits in (4, 8):
        for seed in (0, 1):
            finished_run(tmp_path / f"{bits}-{seed}", bits / 10, numbers__bits=bits, seed=seed)
    text = page.build(read_runs([tmp_path])[0])
    links = _Links()
    links.feed(text)
    assert len(links.targets) == 4
    assert links.targets <= links.anchors
    assert [address for address in links.addresses if not address.startswith("data:")] == []
    front = data_of(text)["Accuracy and energy on stm32l4r5"]
    assert front["columns"]["accuracy"] == [0.4, 0.8]
    assert set(front["links"]) <= links.anchors


def test_text_of_a_run_cannot_become_markup(tmp_path):
    folder = finished_run(tmp_path / "<b>", layers={"</script><script>alert(1)</script>": {"weight_bits": 4}})
    text = page.build(read_runs([folder])[0])
    assert "<script>alert(1)" not in text
    assert "<b>" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)


def test_two_hundred_runs_take_less_than_5_s_and_15_mb(tmp_path):
    first = finished_run(tmp_path / "0", n_rows=200)
    for seed in range(1, 200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name in ("experiment.toml", "env.json", "metrics.jsonl", "trace.json", "result.json"):
            text = (first / name).read_text()
            if name == "experiment.toml":
                text = text.replace("seed = 0", f"seed = {seed}").replace("rate = 0.3", f"rate = {1 / (1 + seed % 40)}")
            (folder / name).write_text(text)
    start = time.process_time()
    runs, _ = read_runs([tmp_path])
    text = page.build(runs)
    assert time.process_time() - start < 5
    assert len(runs) == 200
    assert len(text.encode()) < 15e6


def test_the_command_writes_the_file_and_names_what_it_left_out(tmp_path):
    finished_run(tmp_path / "a")
    begun = finished_run(tmp_path / "b", seed=1)
    for name in ("result.json", "SHA256SUMS"):
        (begun / name).unlink()
    done = CliRunner().invoke(cli.main, ["report", str(tmp_path), "-o", str(tmp_path / "out.html")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")
    assert str(begun) in done.stderr


def test_without_plotly_the_error_names_the_extra(one, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(QtrainError, match=r"qtrain\[report\]"):
        page.build(read_runs([one[0]])[0])


def test_a_report_imports_no_torch(one):
    code = f"""if True:
        import sys
        from qtrain.report import page, read_runs
        page.build(read_runs([{str(one[0])!r}])[0])
        assert not {{"torch", "brevitas"}} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)


PROBE = """<script>
addEventListener("load", async () => {
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  for (const figure of document.querySelectorAll("figure.chart")) {
    await show(figure);
    figure.querySelectorAll(".switch button").forEach((button) => button.click());
  }
  const unhovered = [];
  for (const figure of document.querySelectorAll("figure.chart")) {
    const plot = figure.querySelector(".js-plotly-plot"), heat = plot.data[0].type === "heatmap";
    if (heat) Plotly.Fx.hover(plot, { xpx: 10, ypx: 10 }, "xy");
    else Plotly.Fx.hover(plot, [{ curveNumber: plot.data.length - 1, pointNumber: 0 }]);
    if (!plot.querySelector(".hoverlayer .hovertext, .hoverlayer .legend")) unhovered.push(figure.dataset.chart);
  }
  await new Promise((done) => setTimeout(done, 1000));
  const count = (selector) => document.querySelectorAll(selector).length;
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const found = { plots: count(".js-plotly-plot"), tables: count("figure table"), unhovered, requests };
  document.title = JSON.stringify(found);
});
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_draws_every_chart_without_an_error_or_a_request(one, tmp_path):
    other = finished_run(tmp_path / "other", 0.5, devices=("stm32l4r5", "stm32f746"), numbers__bits=4)
    text = page.build(read_runs([one[0], other])[0])
    n_charts = len(charts_of(text))
    # on 2 devices a front; of each run energy and memory on 2 devices, accuracy, loss; of one 2 of the filter, 1 health
    assert n_charts == 2 + 2 * (2 * 2 + 2) + 3
    file = tmp_path / "page.html"
    file.write_text(text.replace("</body>", PROBE))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--window-size=1200,900",
             "--enable-logging=stderr", "--virtual-time-budget=20000", "--host-resolver-rules=MAP * ~NOTFOUND",
             f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    done = subprocess.run(
        [str(CHROMIUM), *flags, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=90,
        env={**os.environ, "HOME": str(tmp_path)}, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title
    assert json.loads(title[1]) == {"plots": n_charts, "tables": n_charts, "unhovered": [], "requests": []}
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
