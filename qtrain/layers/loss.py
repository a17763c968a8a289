"""Losses at the logits: per-instance values, and the error the backward pass starts from.

In fixed point the softmax is integer: with the logits' codes z and step 2^e, d = max z - z, t = round(d 2^e log2(e)) to
16 fraction bits, 2^-t from two 256-entry tables and a shift, p = 2^-t / sum to 24 bits; the loss is log2 of the sum
plus t_target, times ln 2. The batch mean's 1/n is not in the error (it would move its exponent with every kept count):
the update multiplies it into the gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qtrain.formats.fixed import FixedTensor

_FRACTION = 16
_TABLE_BITS = 30
_P_BITS = 24
_LOG2_E = round(math.log2(math.e) * 2**30)
_HIGH = torch.tensor([round(2 ** (_TABLE_BITS - i / 256)) for i in range(256)])
_LOW = torch.tensor([round(2 ** (_TABLE_BITS - i / 65536)) for i in range(256)])
_LN2 = round(math.log(2) * 2**30)


def softmax_codes(logits: FixedTensor) -> tuple[Tensor, Tensor]:
    """(p, losses): probabilities as integers with 24 fraction bits, int64 [n, C], and -log p of every class in nats
    with 16 fraction bits, int64 [n, C]."""
    assert logits.exponent is not None
    codes = logits.codes().long()
    distance = codes.amax(1, keepdim=True) - codes
    shift = min(30 - _FRACTION - logits.exponent, 62)  # distance 2^e log2(e), in units of 2^-16
    product = distance * _LOG2_E  # codes of at most 17 bits: below 2^48
    if shift > 0:
        t = (product + (1 << (shift - 1))) >> shift
    else:
        t = product << min(-shift, 14)
    t = t.clamp(max=(1 << 40) - 1)
    whole, part = t >> _FRACTION, t & 0xFFFF
    power = (_HIGH.to(t.device)[part >> 8] * _LOW.to(t.device)[part & 255]) >> (_TABLE_BITS + whole.clamp(max=31))
    total = power.sum(1, keepdim=True)
    p = torch.div(power << _P_BITS, total, rounding_mode="floor")
    nats = ((t + _log2(total)) * (_LN2 >> 14) + (1 << 15)) >> 16
    return p, nats


def _log2(total: Tensor) -> Tensor:
    """log2(total / 2^30) with 16 fraction bits, from the 256-entry table's inverse: at most 2^-8 below the truth."""
    exponent = torch.frexp(total.double()).exponent.long() - 1
    mantissa = total >> (exponent - _TABLE_BITS)  # in [2^30, 2^31): the largest power in the sum is 2^30
    index = torch.searchsorted(_INVERSE.to(total.device), mantissa, right=True) - 1
    return ((exponent - _TABLE_BITS) << _FRACTION) + (index << (_FRACTION - 8))


_INVERSE = torch.tensor([round(2 ** (_TABLE_BITS + i / 256)) for i in range(256)])


def cross_entropy(logits: FixedTensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor, float]:
    """Softmax cross-entropy of logits [n, C] with class indices [n] or target probabilities [n, C].

    Returns (losses [n] in nats, error [n, C], scale): error x scale is the gradient of the batch loss
    sum_i w_i loss_i / sum_i w_i with respect to the logits. Without `weights` every w_i is 1. In float32 the scale is
    1 and the error is what PyTorch's mean reduction gives.
    """
    n, classes = logits.values.shape
    device = logits.values.device
    targets, weights = targets.to(device), None if weights is None else weights.to(device)
    if logits.exponent is None:
        return _float_cross_entropy(logits.values, targets, weights)
    p, nats = softmax_codes(logits)
    hot = F.one_hot(targets, classes).double() if targets.dim() == 1 else targets.double()
    losses = (nats * hot).sum(1) / 2.0**16
    error = p.double() / 2.0**_P_BITS - hot  # exact: 24 bits; one-hot targets keep it so in float32
    scale = 1.0 / max(n, 1)
    if weights is not None:
        total = float(weights.double().sum())
        error = error * weights.double().view(-1, 1)
        scale = 1.0 / total if total > 0 else 0.0
    return losses.to(logits.values.dtype), error.to(logits.values.dtype), scale


def _float_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, float]:
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        losses = F.cross_entropy(leaf, targets, reduction="none")
        if weights is None:
            batch_loss = F.cross_entropy(leaf, targets)
        else:
            batch_loss = (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)
        (error,) = torch.autograd.grad(batch_loss, leaf)
    return losses.detach(), error, 1.0


def mean_squared_error(outputs: FixedTensor, targets: Tensor) -> tuple[Tensor, Tensor, float]:
    """Reconstruction loss: (losses [n], error, scale) of outputs and targets [n, features]; the loss of an instance
    is the mean over its features of (y - t)^2."""
    difference = outputs.values.flatten(1) - targets.flatten(1)
    losses = difference.square().mean(1)
    n, features = difference.shape
    if outputs.exponent is None:
        return losses, difference * (2.0 / (n * features)), 1.0
    return losses, difference, 2.0 / (n * features)
