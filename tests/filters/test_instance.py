"""The instance filter against its paper's equations (Wu et al. 2020), and its guard against the dead state."""

import copy
import dataclasses
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from qtrain.filters.dead import DeadWatch
from qtrain.filters.instance import margin


def test_the_weighted_loss_is_equation_7(lab):
    """One float32 step equals plain PyTorch's on sum w_i l_i / sum w_i with w_H = 1/0.2 = 5, w_L = 1/0.8 = 1.25."""
    filter_ = lab.make(
        "instance", bits=32, steer="true-high", rate=0.2, threshold=0.5, entropy_threshold=0.0, momentum=0.0, lr=0.1
    )
    plain = copy.deepcopy(filter_.network.model)
    images, labels = lab.stream(0)
    choice = filter_.choose(images, labels, 0)
    rows = torch.cat([choice.kept, choice.uncertain]).sort().values
    assert len(rows) == lab.M  # every entropy is above 0
    high = (lab.loss_of(images) >= 0.5).long()
    assert 0 < int(high.sum()) < lab.M
    filter_.learn(choice, lab.loss_of(images[choice.kept]), lab.loss_of(images[choice.uncertain]), 0)
    loss = F.cross_entropy(plain(images), high, weight=torch.tensor([1.25, 5.0]))
    torch.optim.SGD(plain.parameters(), 0.1).zero_grad()
    loss.backward()
    for ours, theirs in zip(filter_.network.model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs - 0.1 * theirs.grad, atol=1e-6)


def test_without_weights_the_loss_is_the_plain_mean(lab):
    filter_ = lab.make(
        "instance",
        bits=32,
        steer="true-high",
        rate=0.2,
        threshold=0.5,
        entropy_threshold=0.0,
        weighted=False,
        momentum=0.0,
    )
    plain = copy.deepcopy(filter_.network.model)
    images, labels = lab.stream(0)
    choice = filter_.choose(images, labels, 0)
    metrics = filter_.learn(choice, lab.loss_of(images[choice.kept]), lab.loss_of(images[choice.uncertain]), 0)
    loss = F.cross_entropy(plain(images), (lab.loss_of(images) >= 0.5).long())
    assert metrics["filter_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def decided(lab, scale, **settings):
    """A filter that keeps half of stream(1, 64): its last layer has random weights, its bias is their median output."""
    filter_ = lab.make("instance", bits=32, steer="true-high", **settings)
    model = filter_.network.model
    with torch.no_grad():
        model.fc.weight.normal_(0, scale, generator=torch.Generator().manual_seed(0))
        outputs = model(lab.stream(1, 64)[0])
        model.fc.bias[1] -= (outputs[:, 1] - outputs[:, 0]).median()
    return filter_


def test_uncertain_are_the_dropped_whose_entropy_is_high(lab):
    filter_ = decided(lab, 0.3, entropy_threshold=0.6, audit=0.0)
    images, labels = lab.stream(1, 64)
    p = filter_.network.model(images).softmax(1)
    entropy = -(p * p.log()).sum(1)
    dropped = p[:, 1] < p[:, 0]
    assert 0 < int((dropped & (entropy > 0.6)).sum()) < int(dropped.sum()) < 64
    choice = filter_.choose(images, labels, 0)
    assert choice.kept.tolist() == (~dropped).nonzero().flatten().tolist()
    assert choice.uncertain.tolist() == (dropped & (entropy > 0.6)).nonzero().flatten().tolist()
    off = decided(lab, 0.3, entropy_threshold=0.6, audit=0.0, uncertainty=False)
    assert not len(off.choose(images, labels, 0).uncertain)


@pytest.mark.parametrize("seed", range(5))
def test_an_untrained_filter_keeps_everything(lab, seed):
    images, labels = lab.stream(seed, 64)
    assert len(lab.make("instance", steer="true-high", seed=seed).choose(images, labels, 0).kept) == 64


def test_above_ln_2_nothing_is_uncertain(lab):
    """Two classes have an entropy of at most ln 2 = 0.6931."""
    filter_ = decided(lab, 0.01, entropy_threshold=math.log(2) + 1e-6, audit=0.0)
    choice = filter_.choose(*lab.stream(1, 64), 0)
    assert 0 < len(choice.kept) < 64
    assert not len(choice.uncertain)


def dead_filter(lab, **settings):
    """A filter sure that every loss is low."""
    filter_ = lab.make("instance", steer="true-high", **settings)
    with torch.no_grad():
        filter_.network.model.fc.bias.copy_(torch.tensor([20.0, -20.0]))
    return filter_


def test_without_an_audit_a_dead_filter_stays_dead(lab):
    filter_ = dead_filter(lab, audit=0.0)
    before = copy.deepcopy(filter_.network.model.state_dict())
    log = lab.run(filter_, range(30), 40)
    assert all(not kept and not uncertain for kept, uncertain, _, _ in log)
    assert all(torch.equal(tensor, before[name]) for name, tensor in filter_.network.model.state_dict().items())


def test_an_audit_labels_its_share_of_the_dropped(lab):
    """Share 0.1 of 60 x 40 = 2400: binomial, sd sqrt(.09 / 2400) = 0.0061; 5 sd = 0.031. The filter learns again."""
    filter_ = dead_filter(lab, audit=0.1, lr=1e-4)
    before = copy.deepcopy(filter_.network.model.state_dict())
    log = lab.run(filter_, range(60), 40)
    assert sum(len(uncertain) for _, uncertain, _, _ in log) / 2400 == pytest.approx(0.1, abs=0.031)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in filter_.network.model.state_dict().items())


def test_the_dead_state_is_reported_once(lab):
    told = []
    filter_ = dead_filter(lab, audit=0.0)
    filter_.dead = DeadWatch(told.append)
    log = lab.run(filter_, range(60), 40)
    assert [metrics["dead"] for *_, metrics in log] == [0.0] * 49 + [1.0] * 11  # 50 steps, 2000 instances
    assert len(told) == 1
    assert "kept nothing" in told[0]


def test_a_kept_instance_ends_the_dead_state():
    told = []
    watch = DeadWatch(told.append)
    assert [watch.update(100, 0) for _ in range(50)][-1]
    assert not watch.update(100, 1)
    assert not watch.update(0, 0)  # an empty mini-batch says nothing
    for _ in range(50):
        watch.update(100, 100)
    assert watch.is_dead
    assert len(told) == 2
    assert "kept all" in told[1]


def test_the_share_kept_is_the_rate_from_the_first_step_on(lab):
    """0.3 x 64 = 19.2 a step: 19 or 20 when chances sum to it, which ties drawn at random make them do on average."""
    log = lab.run(lab.make("instance", rate=0.3), range(30), 64)
    shares = [len(kept) / 64 for kept, *_ in log]
    assert sum(shares) / 30 == pytest.approx(0.3, abs=0.02)
    assert max(shares) < 0.45
    assert min(shares) > 0.15


def test_recall_by_hand(lab):
    """Of 16 instances 4 are kept, 3 of them high; 2 of the dropped are audited at 0.25, 1 of them high: it stands for
    4, so that 7 are high and 3/7 of them kept (of those known it would be 3/4). Without an audit nobody knows."""
    settings = {"steer": "true-high", "uncertainty": False, "adaptive": False, "threshold": 1.0, "lr": 1e-6}
    for audit, recall in ((0.25, 3 / 7), (0.0, None)):
        filter_ = lab.make("instance", audit=audit, **settings)
        seen = filter_.choose(*lab.stream(0), 0)
        uncertain = [4, 9] if audit else []
        choice = dataclasses.replace(seen, kept=torch.arange(4), uncertain=torch.tensor(uncertain, dtype=torch.int64))
        labels = torch.tensor([2.0, 0.5])[: len(uncertain)]
        metrics = filter_.learn(choice, torch.tensor([1.0, 3.0, 0.5, 2.0]), labels, 0)
        assert metrics["precision"] == 3 / 4
        assert metrics.get("recall") == recall


def test_an_unsure_instance_of_the_papers_rule_stands_for_itself(lab):
    """It is labelled for sure; another dropped one at audit 0.5 only half the time. Kept: 1 high. Missed: of the unsure
    one high (1), of the audited one high (2)."""
    filter_ = lab.make("instance", steer="true-high", adaptive=False, threshold=1.0, audit=0.5, lr=1e-6)
    choice = filter_.choose(*lab.stream(0), 0)
    chances = torch.tensor([1.0, 0.5]).repeat(8).double()
    choice = dataclasses.replace(
        choice, kept=torch.tensor([0]), uncertain=torch.tensor([2, 3]),
        context=choice.context._replace(label_chances=chances),
    )  # fmt: skip
    assert filter_.learn(choice, torch.tensor([2.0]), torch.tensor([2.0, 2.0]), 0)["recall"] == 1 / 4


@pytest.mark.parametrize("steer", ["quantile", "true-high"])
def test_what_is_missed_is_estimated_without_bias(lab, steer):
    """The sum over the steps against the truth, n: n audited with chance a, 1/a each: sd sqrt(n (1 - a) / a), here at
    most sqrt(3 n); 4 sd."""
    made = lab.make("instance", rate=0.3, audit=0.25, lr=1e-6, threshold=1.0, adaptive=steer == "quantile", steer=steer)
    filter_ = made if steer == "quantile" else decided(lab, 0.3, audit=0.25, lr=1e-6, threshold=1.0, adaptive=False)
    estimated, true = 0.0, 0
    for step in range(100):
        images, labels = lab.stream(step, 64)
        choice = filter_.choose(images, labels, step)
        filter_.learn(choice, lab.loss_of(images[choice.kept]), lab.loss_of(images[choice.uncertain]), step)
        dropped = torch.ones(64, dtype=torch.bool)
        dropped[choice.kept] = False
        true += int((lab.loss_of(images[dropped]) >= filter_.threshold.value).sum())
        estimated += filter_.threshold.history[-1].missed
    assert true > 300
    assert estimated == pytest.approx(true, abs=4 * math.sqrt(3 * true))


def test_adaptive_off_changes_the_threshold_alone(lab):
    """Steer quantile draws who is kept by the score's rank as far as the main network is sure of the labels (mean of
    exp(-loss)); a threshold that stands still leaves that as it is, and the first choice with it."""
    still = lab.make("instance", rate=0.3, threshold=0.75, adaptive=False)
    moving = lab.make("instance", rate=0.3)
    images, labels = lab.stream(0, 64)
    choices = [filter_.choose(images, labels, 0) for filter_ in (still, moving)]
    assert choices[0].kept.tolist() == choices[1].kept.tolist()
    for filter_, choice in zip((still, moving), choices, strict=True):
        filter_.learn(choice, lab.loss_of(images[choice.kept]), lab.loss_of(images[choice.uncertain]), 0)
    assert still.threshold.value == 0.75 != moving.threshold.value
    assert 0 < still.threshold.confidence == moving.threshold.confidence < 1
    lab.run(still, range(1, 20), 64)
    assert still.threshold.value == 0.75


@pytest.mark.parametrize(("entropy", "odds"), [(0.6, None), (0.3, None), (0.69, None), (0.0, math.inf), (0.7, 0.0)])
def test_the_margin_is_where_the_entropy_is(entropy, odds):
    """Of p = 1 / (1 + e^-x): -p ln p - (1 - p) ln(1 - p), at most ln 2 = 0.693."""
    x = margin(entropy)
    if odds is not None:
        assert x == odds
    else:
        p = 1 / (1 + math.exp(-x))
        assert -p * math.log(p) - (1 - p) * math.log(1 - p) == pytest.approx(entropy)


@pytest.mark.parametrize("steer", ["quantile", "true-high"])
@pytest.mark.parametrize("bits", [8, 32])
def test_the_filter_learns_which_losses_are_high(lab, bits, steer):
    """The loss is a function of the image. Steered at a true-high share of 0.2, the last 100 of 400 steps are chosen
    better than at random: of the kept, more than twice the share of high losses among all."""
    filter_ = lab.make(
        "instance", bits=bits, steer=steer, rate=0.2, lr=0.05, momentum=0.9, alpha_up=1.05, alpha_down=0.95
    )
    hits = kept = high = 0
    for step in range(400):
        images, labels = lab.stream(step, 64)
        images = images + images.flatten(1)[:, 0].view(-1, 1, 1, 1)  # a brightness of its own
        losses = images.flatten(1).mean(1).clamp(min=0)
        choice = filter_.choose(images, labels, step)
        limit = filter_.threshold.value
        filter_.learn(choice, losses[choice.kept], losses[choice.uncertain], step)
        if step >= 300:
            hits += int((losses[choice.kept] >= limit).sum())
            kept += len(choice.kept)
            high += int((losses >= limit).sum())
    assert kept > 0
    assert hits / kept > 2 * high / 6400


def test_passes_are_charged_to_the_filter(lab):
    """Forward on all 64, backward on the kept and the uncertain, one update each step."""
    filter_ = decided(lab, 1.0, audit=0.3)
    images, labels = lab.stream(1, 64)
    choice = filter_.choose(images, labels, 0)
    filter_.learn(choice, lab.loss_of(images[choice.kept]), lab.loss_of(images[choice.uncertain]), 0)
    trace = filter_.network.trace(filter_.network.schedule(), 1, 64)
    assert {op.payer for op, _ in trace} == {"filter"}
    labelled = len(choice.kept) + len(choice.uncertain)
    assert 0 < labelled < 64
    batches = {phase: {op.batch for op, _ in trace if op.phase == phase} for phase in ("forward", "gradient", "update")}
    assert batches == {"forward": {64}, "gradient": {labelled}, "update": {0}}


@pytest.mark.parametrize("steer", ["quantile", "true-high"])
def test_what_the_rule_by_rank_sorts_is_charged(lab, steer):
    """Mini-batches of 16: scores are ranked among 16, then 32 (N_SCORES), losses among all that are known so far, far
    fewer than N_LOSSES. The paper's rule sorts nothing."""
    filter_, expected, known = lab.make("instance", steer=steer, audit=0.3), Counter(), 0
    for step in range(4):
        images, labels = lab.stream(step, 16)
        choice = filter_.choose(images, labels, step)
        filter_.learn(choice, lab.loss_of(images[choice.kept]), lab.loss_of(images[choice.uncertain]), step)
        known += len(choice.kept) + len(choice.uncertain)
        expected.update([16 if step == 0 else 32, known])
    trace = filter_.network.trace(filter_.network.schedule(), 4, 64)
    ranked = Counter()
    for op, tally in trace:
        if op.phase == "rank":
            ranked[op.batch] += tally.count
            assert (op.layer.kind, op.report_phase, op.macs) == ("loss", "filter_backward", 0)
    assert ranked == (expected if steer == "quantile" else Counter())
    assert steer != "quantile" or known < 64  # some were dropped, their losses not known
