"""Stochastic depth against its paper: what is left out is neither computed, nor updated, nor billed."""

import pytest
import torch
import torch.nn.functional as F

from qtrain import models
from qtrain.errors import QtrainError
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.depth import StochasticDepth
from qtrain.layers.loss import cross_entropy
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock

SHAPE = (3, 8, 8)


def network(bits=32, model="resnet8", seed=0):
    module = models.build(model, SHAPE, 10, seed)
    return quantize(module, SHAPE, NumberPlan.fixed(bits) if bits != 32 else NumberPlan.float32())


def batch(n=6):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *SHAPE, generator=generator), torch.randint(10, (n,), generator=generator)


def choose(net, names):
    """Leave out the blocks that end in the additions `names`, whatever the draw."""
    left_out = frozenset().union(*(net.depth.blocks[name].layers for name in names))
    net.depth.left_out = lambda clock: left_out
    return left_out


def train(net):
    images, labels = batch()
    logits, tape = net.run(images)
    _, error, scale = cross_entropy(logits, labels)
    net.run_back(tape, net.logit_error(error, tape))
    return scale


@pytest.mark.parametrize(("model", "n_blocks"), [("resnet8", 3), ("resnet20", 9)])
def test_blocks_are_the_residual_ones_and_survive_linearly(model, n_blocks):
    """p_l = 1 - l/L (1 - 0.5); the branch is two convolutions and two normalizations, never the shortcut."""
    depth = StochasticDepth(network(model=model).network, 0.5)
    assert [b.survival for b in depth.blocks.values()] == [1 - i / n_blocks / 2 for i in range(1, n_blocks + 1)]
    for block in depth.blocks.values():
        assert len(block.layers) == 4
        assert not any("shortcut" in name for name in block.layers)


def test_a_network_without_blocks_says_so():
    with pytest.raises(QtrainError, match="no residual blocks"):
        quantize(models.build("lenet5"), (1, 28, 28), NumberPlan.float32()).drop_blocks(0.5)


def test_blocks_are_left_out_as_often_as_their_survival_says():
    """2000 steps: binomial, sd <= sqrt(.25 / 2000) = 0.0112; 5 sd = 0.056. The same step draws the same blocks."""
    depth = StochasticDepth(network().network, 0.4)
    draws = [depth.left_out(Clock(7, step)) for step in range(2000)]
    for block in depth.blocks.values():
        assert sum(not block.layers & draw for draw in draws) / 2000 == pytest.approx(block.survival, abs=0.056)
    assert draws[:50] == [depth.left_out(Clock(7, step)) for step in range(50)]


def test_a_block_left_out_is_its_shortcut_forward_and_backward():
    """Logits and gradients equal PyTorch's of the same network whose second block is relu(shortcut(x))."""
    net = network()
    net.drop_blocks(0.5)
    left_out = choose(net, [list(net.depth.blocks)[1]])
    train(net)
    model = net.model
    images, labels = batch()
    x = model.stage1_1(model.stem(images))
    x = F.relu(model.stage2_1.shortcut(x))
    logits = model.fc(model.flatten(model.mean(model.stage3_1(x))))
    names = [n for n, p in model.named_parameters() if p.grad is not None]
    parameters = [p for p in model.parameters() if p.grad is not None]
    expected = torch.autograd.grad(F.cross_entropy(logits, labels), parameters)
    for name, parameter, gradient in zip(names, parameters, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5), name
    without = {n.rpartition(".")[0] for n, p in model.named_parameters() if p.grad is None}
    assert without == set(left_out)


@pytest.mark.parametrize("bits", [8, 32])
def test_a_block_left_out_is_neither_billed_nor_updated(bits):
    net = network(bits)
    net.drop_blocks(0.5)
    optimizer = FixedSGD(net, 0.1, 0.9, 1e-4)
    left_out = choose(net, list(net.depth.blocks)[1:])
    before = {n: p.detach().clone() for n, p in net.model.named_parameters()}
    scale = train(net)
    optimizer.step(Clock(0, 0), scale)
    billed = {net.network.layers[index].name for index, *_ in net.counts}
    assert not billed & left_out
    assert billed >= {la.name for la in net.network.layers if la.n_parameters} - left_out
    for name, parameter in net.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name.rpartition(".")[0] in left_out), name


@pytest.mark.parametrize("bits", [8, 32])
def test_a_prediction_multiplies_each_branch_by_its_survival(bits):
    """With p_L = 1 - 3/256 all p_l are multiples of 1/256: 255/256, 254/256, 253/256; in float32 the logits are
    PyTorch's. Fixed point is near them, and all layers run."""
    net = network(bits)
    net.drop_blocks(1 - 3 / 256)
    images, _ = batch()
    net.run(images)  # exponents and running statistics
    choose(net, list(net.depth.blocks))
    logits, _ = net.run(images, training=False)
    model = net.model.eval()
    x = model.stem(images)
    for i, block in enumerate((model.stage1_1, model.stage2_1, model.stage3_1), start=1):
        branch = block.norm(block.conv(block.first(x)))
        x = F.relu(branch * (1 - i / 256) + block.shortcut(x))
    expected = model.fc(model.flatten(model.mean(x))).detach()
    tolerance = 1e-4 if bits == 32 else 0.2 * float(expected.abs().max())
    assert torch.allclose(logits.values.float(), expected, atol=tolerance)
