"""With float32 formats, no filter and no pruning, the simulator computes PyTorch's numbers, bit for bit."""

import pytest
import torch
import torch.nn.functional as F

from qtrain.layers import NumberPlan, quantize
from qtrain.layers.loss import cross_entropy, mean_squared_error
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.models import build, info, names

BATCH = 3


def pair(name: str) -> tuple:
    """(simulated network, the same plain model, a batch of images)."""
    found = info(name)
    model, plain = build(name, seed=1), build(name, seed=1)
    net = quantize(model, found.input_shape, NumberPlan.float32(), name=name)
    generator = torch.Generator().manual_seed(2)
    return net, plain, torch.randn(BATCH, *found.input_shape, generator=generator), found


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", [n for n in names() if info(n).filter])
def test_losses_and_gradients_equal(name: str, memory_format: torch.memory_format) -> None:
    net, plain, images, found = pair(name)
    net.memory_format = memory_format
    images = images.to(memory_format=memory_format)
    logits, tape = net.run(images)
    wanted = plain(images)
    assert torch.equal(logits.values, wanted.flatten(1))
    if found.task == "classify":
        labels = torch.arange(BATCH) % found.n_classes
        losses, error, scale = cross_entropy(logits, labels)
        loss = F.cross_entropy(wanted, labels)
        assert torch.equal(losses, F.cross_entropy(wanted, labels, reduction="none"))
    else:
        target = images.flatten(1)
        losses, error, scale = mean_squared_error(logits, target)
        loss = F.mse_loss(wanted, target)
        assert torch.allclose(losses.mean(), loss)
    assert scale == 1.0
    net.run_back(tape, net.logit_error(error, tape))
    loss.backward()
    for (parameter, ours), theirs in zip(net.model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), parameter
    for (buffer, ours), theirs in zip(net.model.named_buffers(), plain.buffers(), strict=True):
        if not buffer.endswith("num_batches_tracked"):
            assert torch.equal(ours, theirs), buffer


@pytest.mark.parametrize("name", ["lenet5", "resnet8"])
def test_training_equals_torch_sgd(name: str) -> None:
    net, plain, images, _found = pair(name)
    ours = FixedSGD(net, lr=0.1, momentum=0.9, weight_decay=1e-3)
    theirs = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    labels = torch.arange(BATCH)
    for step in range(3):
        logits, tape = net.run(images)
        _, error, scale = cross_entropy(logits, labels)
        net.run_back(tape, net.logit_error(error, tape))
        ours.step(Clock(0, step), scale)
        theirs.zero_grad()
        F.cross_entropy(plain(images), labels).backward()
        theirs.step()
    for a, b in zip(net.model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_behind_any_autograd_loss() -> None:
    """The network is one node of PyTorch's graph: a loss of one's own gives the same gradients."""
    net, plain, images, _ = pair("lenet5")
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    net(ours).square().sum().backward()
    plain(theirs).square().sum().backward()
    assert torch.equal(ours.grad, theirs.grad)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(net.model.parameters(), plain.parameters(), strict=True))
