"""Does this machine's convolution add integers exactly? Certificates assume it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch


@cache
def convolution_is_exact(device: str = "cpu") -> bool:
    """Whether float32 convolutions sum integers of up to 24 bits exactly in all three passes, asked once a process.

    Compared with float64 on codes as large as the certificates allow, in both memory formats. Winograd transforms,
    TF32 and other reduced-precision kernels fail.
    """
    generator = torch.Generator().manual_seed(0)

    def codes(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator).float().to(device)

    with torch.no_grad():
        for groups, channels, size in ((1, 16, 12), (16, 16, 9), (1, 3, 8)):
            w = codes(-127, 128, 16, channels // groups, 3, 3)
            for layout in (torch.contiguous_format, torch.channels_last):
                x = codes(0, 256, 3, channels, size, size).contiguous(memory_format=layout)
                g = codes(-127, 128, 3, 16, size, size).contiguous(memory_format=layout)
                if not all(torch.equal(a.double(), b) for a, b in zip(_passes(x, w, g, groups), _passes(
                        x.double(), w.double(), g.double(), groups), strict=True)):  # fmt: skip
                    return False
    return True


def _passes(x: torch.Tensor, w: torch.Tensor, g: torch.Tensor, groups: int) -> tuple[torch.Tensor, ...]:
    """Forward, input error and weight gradient of a 3 x 3 convolution with padding 1."""
    y = torch.nn.functional.conv2d(x, w, padding=1, groups=groups)
    settings: tuple[Any, ...] = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], groups, [True, True, False])
    d_input, d_weight, _ = torch.ops.aten.convolution_backward(g, x, w, *settings)
    return y, d_input, d_weight
