"""The loss threshold against equations 1 to 3 of Wu et al. 2020."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain.errors import QtrainError
from qtrain.filters.threshold import LEAST, Counts, LossThreshold


def threshold(rate=0.3, up=1.1, down=0.9, window=2, start=1.0, adaptive=True, steer="true-high"):
    return LossThreshold(rate, up, down, window, start, adaptive, steer)


def high(t, losses):
    return t.high(losses, torch.ones(len(losses)), len(losses))


def test_the_threshold_follows_equations_2_and_3():
    """R_set 0.3, n = 2, batches of 10 with 4, 2 and 0 true-high instances:
    R_TH = 4/10 >= 0.3: T = 1.1; (4+2)/20 = 0.3 >= 0.3: T = 1.21; (2+0)/20 = 0.1 < 0.3: T = 1.089."""
    t = threshold()
    values = []
    for true_high in (4, 2, 0):
        t.update(Counts(10, 6, true_high, 0.0))
        values.append(t.value)
    assert values == pytest.approx([1.1, 1.21, 1.089])


def test_every_streamed_instance_counts_in_the_ratio():
    """Batches of 4 and 16 with 4 and 1 true-high: 5/20, not the mean of the shares (1 + 1/16)/2."""
    t = threshold()
    t.update(Counts(4, 4, 4, 0.0))
    t.update(Counts(16, 2, 1, 2.0))
    assert t.share("true_high") == 5 / 20


def test_precision_and_recall_by_hand():
    """Kept 6 + 2, of which 4 + 1 high; missed 0.5 + 4.5: precision 5/8, recall 5 / (5 + 5). While what was missed in
    one mini-batch of the window is unknown, so is the recall."""
    t = threshold()
    t.update(Counts(10, 6, 4, 0.5))
    t.update(Counts(10, 2, 1, 4.5))
    assert t.metrics()["precision"] == 5 / 8
    assert t.metrics()["recall"] == 5 / 10
    t.update(Counts(10, 2, 1, None))
    assert t.metrics()["precision"] == 2 / 4
    assert "recall" not in t.metrics()


def test_steered_by_the_kept_share_precision_does_not_matter():
    t = threshold(steer="kept")
    t.update(Counts(10, 3, 0, 0.0))  # 3/10 >= 0.3 although nothing kept was high
    assert t.value == pytest.approx(1.1)
    with pytest.raises(QtrainError, match="steer"):
        threshold(steer="keep")


def test_a_static_threshold_stays():
    t = threshold(adaptive=False)
    t.update(Counts(10, 9, 9, 0.0))
    assert t.value == 1.0


def test_the_first_threshold_is_a_tenth_of_the_first_losses():
    """Mean of 1, 2, 3 is 2: T_l = 0.2, and all three are high; without losses it waits."""
    t = threshold(start=0.0)
    assert not len(high(t, torch.zeros(0)))
    assert t.value == 0.0
    assert high(t, torch.tensor([1.0, 2.0, 3.0])).all()
    assert t.value == pytest.approx(0.2)


@given(
    rate=st.floats(0.05, 0.95),
    kept=st.lists(st.integers(0, 8), min_size=1, max_size=30),
    steer=st.sampled_from(["true-high", "kept"]),
)
def test_the_threshold_moves_against_the_share_and_stays_positive(rate, kept, steer):
    t = threshold(rate, 1.2, 0.5, 3, 2.0**-15, True, steer)
    for n in kept:
        before = t.value
        t.update(Counts(8, n, n, 0.0))
        assert t.value >= LEAST
        grows = t.share("kept") >= rate
        assert t.value > before if grows else t.value <= before
