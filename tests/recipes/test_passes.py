"""What the recipes' passes cost and what they leave behind: charged to whom, at which batch, with which gradients."""

import pytest
import torch

from qtrain.data import load
from qtrain.layers.inner import InnerPasses
from qtrain.recipes.attack import linf_attack
from qtrain.training.material import material


def tally(job, phase, payer):
    """Instances passed through the first convolution in this phase for this payer."""
    index = next(i for i, la in enumerate(job.net.network.layers) if la.kind == "conv")
    rows = job.net.counts.items()
    return sum(batch * n for (i, p, who, batch, _), (n, _) in rows if (i, p, who) == (index, phase, payer))


def macs(job):
    return sum(t.count * op.macs for op, t in job.net.trace(job.schedule))


def test_sinkhorn_prices_both_views(job, one_step):
    made = one_step(job("sinkhorn"))
    # 8 streamed: 8 weak views forward alone; 8 strong ones and 4 labelled forward and backward
    assert tally(made, "forward", "inner") == 8
    assert tally(made, "forward", "main") == 8 + 4
    assert tally(made, "gradient", "main") == 8 + 4
    assert tally(made, "gradient", "inner") == 0


@pytest.mark.parametrize("interval", [1, 2, 4])
def test_lazy_scoring_scores_the_new_and_the_due(job, one_step, interval):
    made = job("contrast", contrast__interval=interval)
    scored = []
    for step in range(4):
        before, ages = tally(made, "forward", "inner"), made.recipe.ages.clone()
        one_step(made, step)
        due = int((ages + 1 >= interval).sum())
        scored.append(due + 8)
        assert tally(made, "forward", "inner") - before == 2 * (due + 8)  # the image and its still view
    assert len(made.recipe.images) == 8
    if interval == 1:
        assert scored == [8, 16, 16, 16]
    assert tally(made, "gradient", "main") == 4 * 2 * 8


@pytest.mark.parametrize("flip", [True, False])
def test_the_score_is_blind_to_what_the_views_teach(job, flip):
    """Mirrored digits are no view where `flip` is off: a score of theirs would never fall."""
    made = job("contrast", data__flip=flip, numbers__bits=32)
    half = torch.rand(3, 1, 8, 4, generator=torch.Generator().manual_seed(0))
    symmetric = torch.cat([half, half.flip(3)], 3)
    scores = made.recipe._scored(made.net, symmetric, torch.arange(3), 3)
    assert (scores.abs().max() < 1e-5) == flip


@pytest.mark.parametrize("policy", ["fifo", "random"])
def test_policies_without_scores_pass_nothing(job, one_step, policy):
    made = job("contrast", contrast__policy=policy)
    for step in range(2):
        one_step(made, step)
    assert tally(made, "forward", "inner") == 0
    if policy == "fifo":  # the newest segment fills the buffer
        indices = torch.from_numpy(made.batches.indices(1).copy())
        assert (made.recipe.images == made.images[indices]).all()


def test_adversarial_performs_more_macs_than_supervised_on_the_same_stream(job, one_step):
    attacked, plain = one_step(job("adversarial")), one_step(job("supervised"))
    assert macs(attacked) > macs(plain)
    # bank of 40, clean, 2 steps, and the look at what succeeded: 40 + 8 + 2 x 8 + 8 forwards; errors in the steps only
    assert tally(attacked, "forward", "inner") == 40 + 8 + 2 * 8 + 8
    assert tally(attacked, "error", "inner") == 2 * 8
    assert tally(attacked, "gradient", "inner") == 0


def test_trades_goes_forward_on_clean_and_attacked(job, one_step):
    made = one_step(job("self-adaptive", self_adaptive__trades=1.0, self_adaptive__attack_steps=3))
    assert tally(made, "forward", "main") == tally(made, "gradient", "main") == 2 * 8
    assert tally(made, "error", "inner") == 3 * 8
    assert tally(made, "gradient", "inner") == 0


@pytest.mark.parametrize("bits", [8, 32])
def test_an_attack_raises_the_loss_within_its_bounds_and_leaves_no_trace(job, bits):
    made = job("supervised", numbers__bits=bits, optimizer__lr=0.05)
    given = material(made.experiment, load("digits"), (1, 8, 8), reconstruct=False)
    attack, inner = linf_attack(given, 0.1, 0.05, 4), InnerPasses()
    images, labels = given.images[:16], given.labels[:16]
    points = {name: q.state() for name, q in made.net.quantizers().items() if name.endswith(".error")}
    trains = [getattr(unit, "trains", None) for unit in made.net.units]

    def losses(x):
        values = made.net.run(x, training=False, record=False)[0].values.double()
        return torch.nn.functional.cross_entropy(values, labels, reduction="none")

    def error_at(seen):
        return seen.values.softmax(1) - torch.nn.functional.one_hot(labels, seen.values.shape[1])

    changed = attack(made.net, inner, images, error_at, torch.arange(16), 16)
    # 0.1 of 255 is 0.1 / std in standardized units; no pixel leaves the range of real ones
    assert (changed - images).abs().max() <= 0.1 * given.deviation.max() * (1 + 1e-5)
    assert (changed >= given.low - 1e-5).all()
    assert (changed <= given.high + 1e-5).all()
    assert losses(changed).mean() > losses(images).mean()
    assert all(p.grad is None for p in made.net.model.parameters())
    assert {name: made.net.quantizers()[name].state() for name in points} == points
    assert [getattr(unit, "trains", None) for unit in made.net.units] == trains


@pytest.mark.parametrize("recipe", ["supervised", "self-adaptive", "sinkhorn", "adversarial"])
def test_a_network_may_tell_more_classes_apart_than_the_data_have(job, one_step, recipe):
    made = one_step(job(recipe, n_classes=13))
    accuracy, loss = made.evaluate(0)
    assert 0 <= accuracy <= 1
    assert loss > 0


def test_few_labels_leave_a_supervised_recipe_only_those_instances(job):
    made = job("supervised", data__n_labels=20)
    assert len(made.images) == 20
    assert torch.bincount(made.labels).tolist() == [2] * 10
    assert len(job("sinkhorn", data__n_labels=20).images) == 1442


def test_noisy_labels_reach_the_recipe_and_not_the_test_set(job):
    clean, noisy = job("self-adaptive"), job("self-adaptive", data__label_noise=0.5)
    changed = (clean.labels != noisy.labels).double().mean()
    assert changed == pytest.approx(0.5 * 0.9, abs=0.05)  # a tenth of the drawn labels are the true ones
    assert (noisy.recipe.targets.argmax(1) == noisy.labels).all()
    assert (clean.test_labels == noisy.test_labels).all()


def test_targets_stand_still_until_the_start(job, one_step):
    made = job("self-adaptive", self_adaptive__start=0.5)  # of 4 steps
    initial = made.recipe.targets.clone()
    for step in range(2):
        one_step(made, step)
    assert (made.recipe.targets == initial).all()
    one_step(made, 2)
    moved = (made.recipe.targets != initial).any(1)
    assert set(moved.nonzero().flatten().tolist()) <= set(made.batches.indices(2).tolist())
    assert moved.any()
    assert made.recipe.targets.sum(1).sub(1).abs().max() < 1e-5  # still distributions


def test_an_abstaining_network_has_one_more_output_and_reports_coverage(job, one_step):
    made = one_step(job("self-adaptive", self_adaptive__abstain=True))
    assert made.net.network.layers[-1].out_channels == 11
    table = made.recipe.details(made.net, made.test_images, made.test_labels)["selective_error"]
    assert list(table) == ["1", "0.95", "0.9", "0.85", "0.8"]
    accuracy, _ = made.evaluate(0)
    assert table["1"] == pytest.approx(1 - accuracy)


def test_material_states_pixels_in_standardized_units(job):
    made = job("supervised")
    given = material(made.experiment, load("digits"), (1, 8, 8), reconstruct=False)
    assert torch.allclose(given.high - given.low, given.deviation)  # white minus black is 255
    assert given.images.min() >= given.low.min() - 1e-5
    assert given.images.max() <= given.high.max() + 1e-5
