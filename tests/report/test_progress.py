"""The display of a sweep: what is done, running and failed, and how far each running trial is."""

import io

from rich.console import Console

from qtrain.experiment import Experiment
from qtrain.report.progress import sweep_display
from qtrain.sweep import Sweep
from qtrain.sweep.worker import PROGRESS


def test_running_trials_have_a_line_with_their_setting_and_share(tmp_path):
    folders = [tmp_path / name for name in "abcd"]
    for folder, text in zip(folders, ("10 40\n", "", "1 4\n", "3 4\n"), strict=True):  # b: only half written
        folder.mkdir()
        (folder / PROGRESS).write_text(text)
    experiments = [Experiment().with_options({"numbers.bits": bits}) for bits in (3, 4, 5, 6)]
    sweep = Sweep(folders, computed=[folders[2]], n_planned=5, experiments=experiments)
    sweep.failed.append({"run": "e", "error": "", "seed": 0})
    assert sweep.running == {folders[0]: (10, 40), folders[3]: (3, 4)}
    file = io.StringIO()
    with sweep_display(Console(file=file, force_terminal=True, width=80)) as show:
        assert show is not None
        show(sweep)
        (folders[3] / PROGRESS).unlink()
        sweep.computed.append(folders[3])
        show(sweep)
    last = file.getvalue().rpartition("3 of 5 trials, 1 running, 1 failed")[2]
    assert " 65%" in last  # 3 done and 10/40 of one, of 5
    assert "bits 3" in last
    assert " 25%" in last
    assert "bits 6" not in last


def test_there_is_none_where_nobody_sees_it(tmp_path):
    with sweep_display(Console(file=io.StringIO())) as show:
        assert show is None
