"""Charts as files: each is there, drawn by a browser; without one the error says what to do."""

import shutil

import pytest
from click.testing import CliRunner

import cli
from qtrain.errors import QtrainError
from qtrain.report import images, read_runs
from tests.report.finished import finished_run

pytest.importorskip("plotly", reason="needs the extra report")
HEADS = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<svg"}


@pytest.mark.skipif(not any(map(shutil.which, images.BROWSERS)), reason="no chromium on this machine")
@pytest.mark.parametrize("fmt", images.FORMATS)
def test_every_chart_becomes_a_file_of_its_format(tmp_path, fmt):
    finished_run(tmp_path / "run", 0.875)
    arguments = ["report", str(tmp_path / "run"), "-o", str(tmp_path / "out.html"), "--image-format", fmt]
    done = CliRunner().invoke(cli.main, [*arguments, "--images", str(tmp_path / "images")])
    assert done.exit_code == 0, done.output
    files = sorted((tmp_path / "images").iterdir())
    titles = ("accuracy", "loss", "energy-by-layer-and-phase-on-stm32l4r5", "memory-of-one-training-step-on-stm32l4r5")
    assert [file.name for file in files] == [f"run-1-{i}-{title}.{fmt}" for i, title in enumerate(titles)]
    for file in files:
        assert file.read_bytes().startswith(HEADS[fmt])


def test_without_a_browser_the_error_says_how_to_get_one(tmp_path, monkeypatch):
    finished_run(tmp_path / "run")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(images.BROWSER_PATH, raising=False)
    with pytest.raises(QtrainError, match=r"--images needs Chrome or Chromium.*apt install chromium"):
        images.write(read_runs([tmp_path / "run"])[0], tmp_path / "images")


def test_a_browser_that_draws_nothing_is_an_error_in_one_line(tmp_path, monkeypatch):
    finished_run(tmp_path / "run")
    monkeypatch.setenv(images.BROWSER_PATH, str(shutil.which("true")))
    with pytest.raises(QtrainError, match="could not draw"):
        images.write(read_runs([tmp_path / "run"])[0], tmp_path / "images")
