"""The contrastive loss and what is measured by it, in float at the network's outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def directions(outputs: Tensor) -> Tensor:
    """Outputs [n, d] brought to length 1."""
    return F.normalize(outputs, dim=1)


def nt_xent(outputs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent (Chen et al. 2020, SimCLR, arXiv 2002.05709, equation 1) of outputs [2 n, d] whose halves are two views
    of n instances: (losses [n] in nats, the mean of an instance's two; gradient [2 n, d] of the sum of all 2 n terms).
    The other 2 n - 2 outputs are the negatives, so that one instance alone has loss 0."""
    n = len(outputs) // 2
    with torch.enable_grad():
        leaf = outputs.detach().double().requires_grad_()
        z = directions(leaf)
        similarity = (z @ z.t() / temperature).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
        partner = (torch.arange(2 * n) + n) % (2 * n)
        losses = F.cross_entropy(similarity, partner, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach().view(2, n).mean(0).to(outputs.dtype), gradient.to(outputs.dtype)


def contrast_scores(outputs: Tensor, seen: Tensor) -> Tensor:
    """S = 1 - z . z' in [0, 2] of outputs [n, d] for images and for their still views (Wu et al. 2021: mirrored): high
    where the network does not yet see that both are the same."""
    return 1 - (directions(outputs) * directions(seen)).sum(1)


def farthest_first(outputs: Tensor, n: int) -> Tensor:
    """Positions of `n` outputs that cover all: the first, then ever the one farthest from those chosen (k-centre,
    Gonzalez 1985)."""
    z = directions(outputs)
    chosen = [0]
    distance = (z - z[0]).square().sum(1)
    while len(chosen) < min(n, len(z)):
        distance[chosen[-1]] = -1.0  # never again, even among equal ones
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (z - z[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)
